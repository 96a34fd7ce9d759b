<?php

/**
 * Dispatches COUNT jobs, RATE a second or as fast as it can (0), and then STOPS that end a worker.
 *
 *     QUEUE=... php dispatch.php COUNT RATE STOPS
 */

declare(strict_types=1);

require_once __DIR__ . '/application.php';

[, $count, $rate, $stops] = array_map('intval', $argv);
$queue = application()->getConnection();
$began = hrtime(true);
for ($number = 0; $number < $count; $number++) {
    $due = hrtime(true);
    if ($rate > 0) {
        // Late or not: the moment at which it was to be dispatched is what counts.
        $due = $began + intdiv($number * 1_000_000_000, $rate);
        while (($left = $due - hrtime(true)) > 0) {
            usleep(intdiv($left, 1000));
        }
    }
    $queue->push(new Timed($number, $due));
}
for ($number = 0; $number < $stops; $number++) {
    $queue->push(new Stop());
}
