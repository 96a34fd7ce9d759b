<?php
// A consumer to be killed: worker.php ADDRESS QUEUE WINDOW. Says each message's body on a line of
// its own once it has written the acknowledgement.

declare(strict_types=1);

require __DIR__ . '/Client.php';

[, $address, $queue, $window] = $argv;
$client = new Client($address);
$client->consume($queue, (int) $window);
while (($message = $client->receive(60)) !== null) {
    $client->acknowledge($message);
    $client->flush();
    echo $message['02'], "\n";
}
