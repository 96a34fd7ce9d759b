<?php
// The checks: main.php PATH-OF-PHPMQD. Each one runs over TCP and over a Unix socket.

declare(strict_types=1);

require __DIR__ . '/Client.php';
require __DIR__ . '/Daemon.php';

function check(bool $so, string $what): void
{
    if (!$so) {
        throw new RuntimeException($what);
    }
}

/** @return list<string> the bodies of the next messages, acknowledged */
function take(Client $client, int $count): array
{
    $bodies = [];
    while (count($bodies) < $count && ($message = $client->receive()) !== null) {
        $bodies[] = $message['02'];
        $client->acknowledge($message);
    }
    $client->flush();
    return $bodies;
}

/** @return list<string> */
function numbers(int $count): array
{
    return array_map(strval(...), range(1, $count));
}

/** @param list<string> $bodies */
function sendAll(Client $client, string $queue, array $bodies, ?int $ttl = null): void
{
    foreach ($bodies as $body) {
        $client->send($queue, $body, $ttl);
    }
    $client->flush();
}

$checks = [];

$checks['10,000 messages go to two consumers in order, once each, in equal shares'] =
function (Daemon $daemon, string $address): void {
    $consumers = [new Client($address), new Client($address)];
    foreach ($consumers as $consumer) {
        $consumer->consume('shared', 5);
        $consumer->flush();
    }
    $sender = new Client($address);
    foreach (numbers(10_000) as $body) {
        $sender->send('shared', $body);
    }
    // They acknowledge when both hold all they may: so neither falls behind for want of a processor.
    $got = [[], []];
    $all = [...$consumers, $sender];
    $end = microtime(true) + 60;
    while (count($got[0]) + count($got[1]) < 10_000) {
        $held = [[], []];
        while (count($held[0]) + count($held[1]) < 10) {
            check(microtime(true) < $end, 'only ' . (count($got[0]) + count($got[1])) . ' came');
            Client::pump($all, 1);
            foreach ($consumers as $index => $consumer) {
                while (($message = $consumer->next()) !== null) {
                    $held[$index][] = $message;
                }
            }
        }
        foreach ($consumers as $index => $consumer) {
            foreach ($held[$index] as $message) {
                $got[$index][] = (int) $message['02'];
                $consumer->acknowledge($message);
            }
        }
    }
    array_map(fn (Client $consumer) => $consumer->flush(), $consumers);
    foreach ($got as $share) {
        $sorted = $share;
        sort($sorted);
        check($share === $sorted, 'a consumer got its share out of order');
        check(count($share) === 5_000, 'the shares are ' . count($got[0]) . ' and ' . count($got[1]));
    }
    $union = [...$got[0], ...$got[1]];
    sort($union);
    check($union === range(1, 10_000), 'some were delivered twice or never');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['a consumer that is killed in the middle loses nothing'] =
function (Daemon $daemon, string $address): void {
    $command = [PHP_BINARY, __DIR__ . '/worker.php', $address, 'fragile', '5'];
    $worker = proc_open($command, [1 => ['pipe', 'w']], $pipes);
    $consumer = new Client($address);
    $consumer->consume('fragile', 5);
    $consumer->flush();
    $sender = new Client($address);
    foreach (numbers(10_000) as $body) {
        $sender->send('fragile', $body);
    }
    stream_set_blocking($pipes[1], false);
    [$done, $output, $worked, $alive] = [[], '', 0, true];
    $end = microtime(true) + 60;
    while (count($done) < 10_000 && microtime(true) < $end) {
        Client::pump([$consumer, $sender], 0.05);
        // The consumer that lives goes on when the other is dead, so that that one has had a share.
        while (!$alive && ($message = $consumer->next()) !== null) {
            $done[$message['02']] = true;
            $consumer->acknowledge($message);
        }
        $output .= (string) fread($pipes[1], 65_536);
        $lines = explode("\n", $output);
        $output = (string) array_pop($lines);
        $done += array_fill_keys($lines, true);
        $worked += count($lines);
        if ($alive && $worked >= 1_000) {
            proc_terminate($worker, 9);
            $alive = false;
        }
    }
    $consumer->flush();
    proc_close($worker);
    check(!$alive, 'the worker was never killed');
    check(count($done) === 10_000, count($done) . ' of 10,000 came');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['a message that kills its consumers takes none of 1,000 in their windows with it'] =
function (Daemon $daemon, string $address): void {
    $sender = new Client($address);
    sendAll($sender, 'poisoned', ['poison', ...numbers(999)]);
    check($daemon->waitForFigure('messages', 1_000), 'the messages did not come');
    for ($death = 1; $death <= 2; $death++) {
        // It takes 1,000 at a time, and dies of the first.
        $command = [PHP_BINARY, __DIR__ . '/worker.php', $address, 'poisoned', '1000', 'poison'];
        $worker = proc_open($command, [1 => ['pipe', 'w']], $pipes);
        stream_get_contents($pipes[1]);
        proc_close($worker);
        check($daemon->waitForFigure('messages ready', 1_000), 'they are not given back');
    }
    $healthy = new Client($address);
    $healthy->consume('poisoned', 1_000);
    check(take($healthy, 999) === numbers(999), 'the healthy ones did not come in their order');
    check($daemon->waitForFigure('messages', 1), 'one is left');
    check(str_contains($daemon->console('kick poison 10'), 'OK, 1 kicked'), 'kick');
    check(take($healthy, 1) === ['poison'], 'the kicked one did not come back');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['both revisions are served at the same time'] =
function (Daemon $daemon, string $address): void {
    [$old, $new, $silent] = [new Client($address, 1), new Client($address, 2), new Client($address, null)];
    sendAll($old, 'revisions', ['1', '2', '3', '4']);
    check($daemon->waitForFigure('messages', 4), 'the messages did not come');
    sendAll($new, 'revisions', ['5', '6', '7', '8'], 0);
    check($daemon->waitForFigure('messages', 8), 'the messages did not come');

    // Who shows nothing gets each message in its own revision.
    $silent->consume('revisions', 10);
    for ($number = 1; $number <= 8; $number++) {
        $message = $silent->receive();
        check(($message['02'] ?? null) === (string) $number, "message $number did not come");
        check(isset($message['05']) === ($number > 4), "message $number has the wrong revision");
    }
    $silent->close();
    check($daemon->waitForFigure('messages ready', 8), 'the messages did not go back');

    // Who showed its revision gets all messages in that.
    $old->consume('revisions', 8);
    for ($number = 1; $number <= 8; $number++) {
        $message = $old->receive();
        check($message !== null && !isset($message['05']), "message $number is not of revision 1");
    }
    $old->close();
    check($daemon->waitForFigure('messages ready', 8), 'the messages did not go back');
    $new->consume('revisions', 8);
    for ($number = 1; $number <= 8; $number++) {
        $message = $new->receive();
        check(($message['05'] ?? null) === '0', "message $number is not of revision 2");
        $new->acknowledge($message);
    }
    $new->flush();
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['a message lives as long as it was given'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address, 2);
    $expired = $daemon->figure('messages expired');
    $client->send('mortal', 'short', 1);
    $client->send('mortal', 'long', 100);
    $client->send('mortal', 'immortal', 0);
    $client->flush();
    check($daemon->waitForFigure('messages expired', $expired + 1), 'nothing expired');
    $client->consume('mortal', 5);
    $long = $client->receive();
    $immortal = $client->receive();
    check($long['02'] === 'long' && $immortal['02'] === 'immortal', 'the wrong message expired');
    check((int) $long['05'] >= 80 && (int) $long['05'] <= 100, "it has {$long['05']} seconds left");
    check($immortal['05'] === '0', 'it is mortal');
    $client->acknowledge($long);
    $client->acknowledge($immortal);
    $client->flush();
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['a re-queued message goes to the end with a new time to live'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address, 2);
    sendAll($client, 'again', ['first', 'second', 'third'], 0);
    $client->consume('again', 1);
    $client->requeue($client->receive(), 50);
    $left = [];
    for ($number = 0; $number < 3; $number++) {
        $message = $client->receive();
        $left[] = $message['02'] . ' ' . ((int) $message['05'] > 0 ? 'mortal' : 'immortal');
        $client->acknowledge($message);
    }
    $client->flush();
    check($left === ['second immortal', 'third immortal', 'first mortal'], implode(', ', $left));
};

$checks['a dead letter is kept apart for the operator'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address, 2);
    sendAll($client, 'dead', ['bad', 'good'], 0);
    $client->consume('dead', 1);
    $client->deadLetter($client->receive());
    check(take($client, 1) === ['good'], 'the next message did not follow');
    check($daemon->waitForFigure('messages', 1), 'it is gone');
    check($daemon->figure('messages buried') === 1, 'it is not buried');
    $other = new Client($address);
    $other->consume('dead', 1);
    check($other->receive(0.3) === null, 'it was dispatched again');
    check(str_contains($daemon->console('flush dead'), "\nOK\n"), 'flush does not answer OK');
    check($daemon->waitForFigure('messages', 0), 'flush left it');
};

$checks['who asks is told when a message is kept, and who does not is told nothing'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address, null);
    $client->send('confirmed', 'a');
    $client->send('confirmed', 'b', null, 'number b');
    $client->send('confirmed', 'c', 60, random_bytes(64));
    $client->flush();
    $b = $client->receive();
    $c = $client->receive();
    check($b['type'] === '007' && $b['06'] === 'number b', 'b is not confirmed');
    check($c['type'] === '007' && strlen($c['06']) === 64, 'c is not confirmed');
    $consumer = new Client($address, null);
    $consumer->consume('confirmed', 5);
    foreach (['a' => null, 'b' => $b['03'], 'c' => $c['03']] as $body => $id) {
        $message = $consumer->receive();
        check($message['02'] === $body, "$body did not come");
        check($id === null || $message['03'] === $id, "$body has another id than was confirmed");
        $consumer->acknowledge($message);
    }
    $consumer->flush();
    check($client->receive(0.2) === null, 'there are more answers than questions');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['a window is never overdrawn, can be changed, and ends with 0'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address);
    sendAll($client, 'window', numbers(10));
    $client->consume('window', 3);
    $held = [$client->receive(), $client->receive(), $client->receive()];
    check($client->receive(0.3) === null, 'more than 3 came');
    $client->acknowledge($held[0]);
    check($client->receive()['02'] === '4' && $client->receive(0.2) === null, 'not one followed one');
    $client->consume('window', 5);
    check($client->receive()['02'] === '5' && $client->receive()['02'] === '6', 'the window did not grow');
    $client->consume('window', 0);
    $client->flush();
    check($daemon->waitForFigure('messages ready', 9), 'what was held did not go back');
    $other = new Client($address);
    $other->consume('window', 9);
    check(take($other, 9) === array_slice(numbers(10), 1), 'the old places are lost');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['one connection consumes from several queues'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address);
    $client->consume('several/a', 1);
    $client->consume('several/b', 2);
    foreach (['a', 'b', 'b', 'b', 'a'] as $index => $queue) {
        $client->send("several/$queue", "$queue$index");
    }
    $came = [];
    for ($number = 0; $number < 3; $number++) {
        $message = $client->receive();
        $came[] = $message['02'];
        $held[$message['02']] = $message;
    }
    sort($came);
    check($came === ['a0', 'b1', 'b2'], implode(', ', $came));
    check($client->receive(0.2) === null, 'a window is overdrawn');
    $client->acknowledge($held['a0']);
    $next = $client->receive();
    check($next['02'] === 'a4', 'the place was given to the other queue');
    array_map($client->acknowledge(...), [$held['b1'], $held['b2'], $next]);
    check(take($client, 1) === ['b3'], 'b3 did not come');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['content is any bytes, and as much as there may be'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address);
    $large = random_bytes(3 * 1024 * 1024);
    sendAll($client, 'größe ☂', ['', "\0\r\nH0100102P01\xff", $large]);
    $client->consume('größe ☂', 3);
    check($client->receive()['02'] === '', 'the empty message is another');
    check($client->receive()['02'] === "\0\r\nH0100102P01\xff", 'the binary message is another');
    check($client->receive(30)['02'] === $large, 'the large message is another');
    $client->close();
    $other = new Client($address);
    $other->consume('größe ☂', 3);
    check(count(take($other, 3)) === 3, 'they did not come again');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['a fault ends the connection, gives back what it held and keeps what was whole'] =
function (Daemon $daemon, string $address): void {
    $other = new Client($address);
    foreach ([
        'garbage', "GET / HTTP/1.1\r\n\r\n", 'H0200102', 'H0199902', 'H0100303', 'H0100105',
        'H0100102P07', sprintf('H0100102P01%029d', 201), 'H0100102P01' . str_repeat('9', 29),
        sprintf('H0100102P01%029d', 0), sprintf('H0100102P01%028dx', 0), sprintf("H0100102P01%029d\n", 1),
    ] as $index => $fault) {
        $client = new Client($address);
        $client->send("faulty/$index", 'whole');
        $client->consume("faulty/$index", 1);
        $client->flush();
        check($client->receive() !== null, 'the message did not come');
        $client->raw($fault . str_repeat('x', 40));
        check($client->waitForEnd(), "not closed after $fault");
        $other->consume("faulty/$index", 1);
        check(take($other, 1) === ['whole'], "the message is lost after $fault");
    }
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['messages survive SIGTERM, and confirmed ones kill -9'] =
function (Daemon $daemon, string $address, string $transport): void {
    $client = new Client($address, 2);
    sendAll($client, 'lasting', numbers(500), 3_600);
    $client->consume('lasting', 10);
    check(take($client, 10) === numbers(10), 'the first ten did not come');
    check($daemon->waitForFigure('messages', 490), 'the acknowledgements did not count');
    check($daemon->stop() === 0, 'SIGTERM did not end well');
    $daemon->start();
    $client = new Client($daemon->addresses[$transport], null);
    foreach (range(501, 600) as $number) {
        $client->send('lasting', (string) $number, 3_600, "$number");
    }
    $client->flush();
    foreach (range(501, 600) as $number) {
        check(($client->receive()['06'] ?? null) === (string) $number, "$number is not confirmed");
    }
    $daemon->stop(9);
    $daemon->start();
    $client = new Client($daemon->addresses[$transport], null);
    $client->consume('lasting', 20);
    $first = $client->receive();
    $left = (int) ($first['05'] ?? 0);
    check($left > 3_000 && $left <= 3_600, "the time to live is $left");
    $client->acknowledge($first);
    check([$first['02'], ...take($client, 589)] === array_slice(numbers(600), 10), 'not all in order');
    check($daemon->waitForFigure('messages', 0), 'acknowledged messages are left');
};

$checks['the console shows, finds and flushes'] =
function (Daemon $daemon, string $address): void {
    $client = new Client($address);
    sendAll($client, 'seen/one', ['x', 'y']);
    sendAll($client, 'seen/two', [str_repeat('z', 2_048)]);
    check($daemon->waitForFigure('messages', 3), 'the messages did not come');
    $found = $daemon->console('search SEEN/*');
    check(preg_match('~^seen/one +2 +2 B$~m', $found) === 1, $found);
    check(preg_match('~^seen/two +1 +2\.0 KiB$~m', $found) === 1, $found);
    check(str_contains($daemon->console('search nothing*'), 'No queue matches nothing*'), 'search');
    $client->consume('seen/one', 1);
    check($client->receive() !== null, 'the message did not come');
    $shown = $daemon->console("show 'seen/one'", 'q');
    check(preg_match('~→ reserved +1 B +\d{4}-\d\d-\d\d~u', $shown) === 1, $shown);
    check(preg_match('~• ready +1 B ~u', $shown) === 1, $shown);
    $monitor = $daemon->console('monitor', 'q');
    check(str_contains($monitor, 'Uptime: ') && preg_match('~^seen/one.*#+$~m', $monitor) === 1, $monitor);
    check(!str_contains($daemon->console('help', 'bogus'), "\e"), 'an escape sequence in plain mode');
    check(str_contains($daemon->console('flush seen/two'), "\nOK\n"), 'flush');
    check($daemon->figure('messages') === 2, 'flush took the wrong queue');
    check(str_contains($daemon->console('flushall'), "\nOK\n"), 'flushall');
    check($daemon->figure('messages') === 0, 'flushall left something');
};

$daemon = new Daemon($argv[1]);
[$passed, $failed] = [0, 0];
foreach ($checks as $what => $run) {
    foreach (['tcp', 'unix'] as $transport) {
        $started = microtime(true);
        try {
            // The consumers of the check before are gone, so that they take nothing of this one.
            check($daemon->waitForFigure('connections', 1), 'connections are left');
            $run($daemon, $daemon->addresses[$transport], $transport);
            $passed++;
            printf("ok      %-4s %s (%.1f s)\n", $transport, $what, microtime(true) - $started);
        } catch (Throwable $error) {
            $failed++;
            printf("FAILED  %-4s %s: %s\n", $transport, $what, $error->getMessage());
            // A clean slate for the next one.
            try {
                $daemon->console('flushall');
            } catch (Throwable) {
                $daemon->stop(9);
                $daemon->start();
            }
        }
    }
}
$daemon->stop();
if ($failed === 0) {
    $daemon->clean();
} else {
    echo "the daemon's folder: {$daemon->folder}\n";
}
echo "$passed passed, $failed failed\n";
exit($failed === 0 ? 0 : 1);
