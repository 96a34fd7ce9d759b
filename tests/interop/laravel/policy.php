<?php

/**
 * Laravel workers that die, time out and fail, under a policy of the daemon that they know nothing
 * of. Called with `work TUBE SECONDS` this is the worker: as it has no limit of tries of its own,
 * it would try for ever.
 */

declare(strict_types=1);

require_once 'Illuminate/Queue/autoload.php';
require_once 'Illuminate/Events/autoload.php';
require_once 'Pheanstalk/autoload.php';
require_once __DIR__ . '/../testing.php';

use Illuminate\Container\Container;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Events\Dispatcher as DispatcherContract;
use Illuminate\Events\Dispatcher;
use Illuminate\Queue\Capsule\Manager;
use Illuminate\Queue\Connectors\BeanstalkdConnector;
use Illuminate\Queue\Worker;
use Illuminate\Queue\WorkerOptions;

const FAILED = 'failed';

final class ImportFile
{
    public function fire($job, array $data): void
    {
        if (($GLOBALS['argv'][1] ?? '') === 'work') {
            echo "began\n";
        }
        switch (getenv('IMPORT') ?: $data['kind']) {
            case 'memory':
                $rows = [];
                while (true) {
                    $rows[] = str_repeat('x', 1 << 20);
                }
            case 'exit':
                exit(1);
            case 'slow':
                // Its time to run is a second; then its supervisor loses patience.
                sleep(2);
                posix_kill(getmypid(), 9);
            case 'error':
                throw new RuntimeException('the file is no table');
        }
        $job->delete();
    }
}

final class Silent implements ExceptionHandler
{
    public function report(Throwable $e)
    {
    }

    public function shouldReport(Throwable $e)
    {
        return true;
    }

    public function render($request, Throwable $e)
    {
    }

    public function renderForConsole($output, Throwable $e)
    {
    }
}

function manager(int $retryAfter = 60): Manager
{
    $container = new Container();
    Container::setInstance($container);
    $events = new Dispatcher($container);
    $container->instance('events', $events);
    $container->instance(DispatcherContract::class, $events);
    $container->instance(ExceptionHandler::class, new Silent());
    $manager = new Manager($container);
    $manager->addConnector('beanstalkd', fn () => new BeanstalkdConnector());
    $manager->addConnection([
        'driver' => 'beanstalkd',
        'host' => getenv('BEANSTALK_HOST'),
        'port' => (int) getenv('BEANSTALK_PORT'),
        'queue' => 'default',
        'retry_after' => $retryAfter,
        'block_for' => 3,
    ]);

    return $manager;
}

/** One job, as `queue:work --once` does it. */
function work(string $tube, int $tries = 0): void
{
    $manager = manager();
    $container = $manager->getContainer();
    $worker = new Worker(
        $manager->getQueueManager(),
        $container['events'],
        $container[ExceptionHandler::class],
        fn () => false
    );
    $worker->runNextJob('default', $tube, new WorkerOptions('default', 0, 256, 0, 0, $tries));
}

if (($argv[1] ?? '') === 'work') {
    ini_set('memory_limit', '32M');
    work($argv[2]);
    exit(0);
}

function push(string $tube, string $kind, int $retryAfter = 60): string
{
    return (string) manager($retryAfter)->getConnection()->push('ImportFile', ['kind' => $kind], $tube)->getId();
}

function facts(string $id): array
{
    $pheanstalk = manager()->getConnection()->getPheanstalk();

    return $pheanstalk->statsJob(new Pheanstalk\Job((int) $id, ''))->getArrayCopy();
}

function is_dead(string $id): bool
{
    return facts($id)['tube'] === FAILED;
}

/** Lets workers come and go until the job is a dead letter: the waits between, in seconds. */
function die_of(string $tube, string $id): array
{
    [$waits, $is_first] = [[], true];
    $goes_on = function () use ($id, &$waits, &$is_first): bool {
        $facts = facts($id);
        // What it was told to wait is there when that is over, too.
        if (!$is_first && $facts['tube'] !== FAILED) {
            $waits[] = (int) $facts['delay'];
        }
        $is_first = false;

        return $facts['tube'] !== FAILED;
    };
    $began = supervise($goes_on, __FILE__, 'work', $tube);
    same(count($waits) + 1, $began, 'attempts');

    return $waits;
}

function a_job_that_exhausts_its_workers_memory_is_set_aside_and_waits_in_between(): void
{
    $id = push('imports-memory', 'memory');
    same([1, 2], die_of('imports-memory', $id), 'waits');
    same('ready', facts($id)['state'], 'state');
    check(str_contains(console('status'), 'messages returned, connection lost: 3'), 'the causes');
}

function a_job_that_ends_its_workers_does_not_hog_the_head_of_the_queue(): void
{
    $bad = push('imports-exit', 'exit');
    for ($i = 0; $i < 3; $i++) {
        push('imports-exit', 'good');
    }
    // The bad one waits, and the three behind it are worked meanwhile, before it comes again.
    $queue = manager()->getConnection();
    supervise(fn () => $queue->size('imports-exit') > 0, __FILE__, 'work', 'imports-exit');
    same(['1', 'delayed'], [facts($bad)['reserves'], facts($bad)['state']], 'the bad one');
    supervise(fn () => !is_dead($bad), __FILE__, 'work', 'imports-exit');
    same('3', facts($bad)['reserves'], 'attempts');
}

function a_job_over_its_time_is_set_aside(): void
{
    $id = push('imports-slow', 'slow', 1);
    same([1, 2], die_of('imports-slow', $id), 'waits');
}

function a_failing_job_waits_longer_than_its_worker_asks_and_is_set_aside(): void
{
    $id = push('imports-error', 'error');
    same([1, 2], die_of('imports-error', $id), 'waits');
    same('3', facts($id)['releases'], 'releases');
}

function a_kick_brings_a_dead_job_back_with_all_its_attempts(): void
{
    $id = push('imports-kick', 'exit');
    same([1, 2], die_of('imports-kick', $id), 'waits');
    same('OK', console("kick-message $id"), 'kick');
    same('imports-kick', facts($id)['tube'], 'tube');
    same([1, 2], die_of('imports-kick', $id), 'waits');
    // The programmer has mended it.
    putenv('IMPORT=good');
    same('OK', console("kick-message $id"), 'kick');
    work('imports-kick');
    putenv('IMPORT');
    try {
        facts($id);
        check(false, 'it is still there');
    } catch (Pheanstalk\Exception\ServerException $gone) {
    }
}

function jobs_of_other_queues_are_tried_at_once_as_before(): void
{
    $id = push('other', 'error');
    for ($i = 0; $i < 5; $i++) {
        work('other');
    }
    $facts = facts($id);
    same(['5', 'ready', 'other'], [$facts['releases'], $facts['state'], $facts['tube']], 'facts');
}

run_tests(
    'a_job_that_exhausts_its_workers_memory_is_set_aside_and_waits_in_between',
    'a_job_that_ends_its_workers_does_not_hog_the_head_of_the_queue',
    'a_job_over_its_time_is_set_aside',
    'a_failing_job_waits_longer_than_its_worker_asks_and_is_set_aside',
    'a_kick_brings_a_dead_job_back_with_all_its_attempts',
    'jobs_of_other_queues_are_tried_at_once_as_before'
);
