<?php

/**
 * Laravel's worker, as artisan queue:work runs it. Says "ready", begins when it is told a line,
 * ends with a Stop, and prints what it has handled as JSON.
 *
 *     QUEUE=... php work.php
 */

declare(strict_types=1);

require_once __DIR__ . '/application.php';

use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Queue\Worker;
use Illuminate\Queue\WorkerOptions;

$manager = application();
$container = $manager->getContainer();
$manager->getConnection()->size();
$worker = new Worker(
    $manager->getQueueManager(),
    $container['events'],
    $container[ExceptionHandler::class],
    fn () => false
);
$container->instance('worker', $worker);
echo "ready\n";
fgets(STDIN);
$worker->daemon('default', 'default', new WorkerOptions('default', 0, 512, 60, 0.01, 1));
echo json_encode(
    ['first' => Timed::$first, 'last' => Timed::$last, 'latencies' => Timed::$latencies]
), "\n";
