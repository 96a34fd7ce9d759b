<?php
// A consumer to be killed: worker.php ADDRESS QUEUE WINDOW [POISON]. Says each message's body on a line of
// its own before it acknowledges it: killed in between, it has said a message that comes again,
// and never swallowed one that does not. A message of the body POISON kills it.

declare(strict_types=1);

require __DIR__ . '/Client.php';

[, $address, $queue, $window] = $argv;
$poison = $argv[4] ?? null;
$client = new Client($address);
$client->consume($queue, (int) $window);
while (($message = $client->receive(60)) !== null) {
    echo $message['02'], "\n";
    if ($message['02'] === $poison) {
        posix_kill(getmypid(), 9);
    }
    $client->acknowledge($message);
    $client->flush();
}
