<?php

/**
 * What a Laravel application does with its queue: push, delay, work, retry, fail, lose a worker.
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
use Illuminate\Queue\BeanstalkdQueue;
use Illuminate\Queue\Capsule\Manager;
use Illuminate\Queue\Connectors\BeanstalkdConnector;
use Illuminate\Queue\Worker;
use Illuminate\Queue\WorkerOptions;
use Pheanstalk\Exception\ServerException;

/** Keeps what happened, in order. */
final class Log
{
    public static array $lines = [];
    public static array $errors = [];

    public static function take(): array
    {
        [$lines, self::$lines] = [self::$lines, []];

        return $lines;
    }
}

final class SendMail
{
    public function fire($job, array $data): void
    {
        $attempt = $job->attempts();
        Log::$lines[] = $data['to'] . ' attempt ' . $attempt;
        if ($attempt <= ($data['fails'] ?? 0)) {
            throw new RuntimeException('the mail server is away');
        }
        if (isset($data['release']) && $attempt === 1) {
            $job->release(1);
        } else {
            $job->delete();
        }
    }

    public function failed(array $data, Throwable $error): void
    {
        Log::$lines[] = $data['to'] . ' failed: ' . $error->getMessage();
    }
}

final class Handler implements ExceptionHandler
{
    public function report(Throwable $e)
    {
        Log::$errors[] = $e->getMessage();
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

function manager(int $retryAfter = 60, int $blockFor = 0): Manager
{
    $container = new Container();
    Container::setInstance($container);
    $events = new Dispatcher($container);
    $container->instance('events', $events);
    $container->instance(DispatcherContract::class, $events);
    $container->instance(ExceptionHandler::class, new Handler());
    $manager = new Manager($container);
    $manager->addConnector('beanstalkd', fn () => new BeanstalkdConnector());
    $manager->addConnection([
        'driver' => 'beanstalkd',
        'host' => getenv('BEANSTALK_HOST'),
        'port' => (int) getenv('BEANSTALK_PORT'),
        'queue' => 'default',
        'retry_after' => $retryAfter,
        'block_for' => $blockFor,
    ]);

    return $manager;
}

function worker(Manager $manager): Worker
{
    $container = $manager->getContainer();

    return new Worker(
        $manager->getQueueManager(),
        $container['events'],
        $container[ExceptionHandler::class],
        fn () => false
    );
}

function options(int $tries = 3, int $backoff = 0): WorkerOptions
{
    return new WorkerOptions('default', $backoff, 256, 0, 0, $tries);
}

function facts(BeanstalkdQueue $queue, string $tube): array
{
    return $queue->getPheanstalk()->statsTube($tube)->getArrayCopy();
}

function pushed_jobs_are_worked_in_order(): void
{
    $manager = manager();
    $queue = $manager->getConnection();
    foreach (['ann', 'bob', 'cid'] as $to) {
        check((int) $queue->push('SendMail', ['to' => $to], 'mail')->getId() > 0, 'an id');
    }
    same(3, $queue->size('mail'), 'size');
    $worker = worker($manager);
    for ($i = 0; $i < 5; $i++) {
        $worker->runNextJob('default', 'mail', options());
    }
    same(['ann attempt 1', 'bob attempt 1', 'cid attempt 1'], Log::take(), 'worked');
    same(0, $queue->size('mail'), 'size');
}

function failing_jobs_are_tried_again_and_then_given_up(): void
{
    $manager = manager();
    $queue = $manager->getConnection();
    $queue->push('SendMail', ['to' => 'ann', 'fails' => 1], 'retry');
    $queue->push('SendMail', ['to' => 'bob', 'fails' => 9], 'retry');
    $worker = worker($manager);
    for ($i = 0; $i < 8; $i++) {
        $worker->runNextJob('default', 'retry', options(3));
    }
    $expected = ['ann attempt 1', 'ann attempt 2', 'bob attempt 1', 'bob attempt 2',
        'bob attempt 3', 'bob failed: the mail server is away'];
    same($expected, Log::take(), 'worked');
    same(0, $queue->size('retry'), 'size');
    same(4, count(array_splice(Log::$errors, 0)), 'reported errors');
}

function delayed_and_released_jobs_come_when_due(): void
{
    $manager = manager(60, 3);
    $queue = $manager->getConnection();
    $queue->later(1, 'SendMail', ['to' => 'ann', 'release' => true], 'later');
    same('1', facts($queue, 'later')['current-jobs-delayed'], 'delayed');
    $started = microtime(true);
    $worker = worker($manager);
    $worker->runNextJob('default', 'later', options());
    $took = microtime(true) - $started;
    check($took > 0.8 && $took < 2, "came after $took s");
    $worker->runNextJob('default', 'later', options());
    $took = microtime(true) - $started;
    check($took > 1.8 && $took < 4, "came again after $took s");
    same(['ann attempt 1', 'ann attempt 2'], Log::take(), 'worked');
}

function several_queues_are_polled_by_rank(): void
{
    $manager = manager();
    $queue = $manager->getConnection();
    $queue->push('SendMail', ['to' => 'low'], 'low');
    $queue->push('SendMail', ['to' => 'high'], 'high');
    $worker = worker($manager);
    for ($i = 0; $i < 3; $i++) {
        $worker->runNextJob('default', 'high,low', options());
    }
    same(['high attempt 1', 'low attempt 1'], Log::take(), 'worked');
}

function a_job_of_a_lost_worker_is_tried_by_another(): void
{
    $lost = manager();
    $lost->getConnection()->push('SendMail', ['to' => 'ann'], 'lost');
    $held = $lost->getConnection()->pop('lost');
    same(1, $held->attempts(), 'attempts');
    $manager = manager();
    worker($manager)->runNextJob('default', 'lost', options());
    same([], Log::take(), 'held by the other');
    // Its process ends: nothing refers to its socket any more.
    unset($held, $lost);
    gc_collect_cycles();
    worker($manager)->runNextJob('default', 'lost', options());
    same(['ann attempt 2'], Log::take(), 'worked');
}

function a_job_over_its_time_is_tried_again(): void
{
    $slow = manager(1);
    $slow->getConnection()->push('SendMail', ['to' => 'ann'], 'slow');
    $held = $slow->getConnection()->pop('slow');
    $manager = manager(60, 3);
    worker($manager)->runNextJob('default', 'slow', options());
    same(['ann attempt 2'], Log::take(), 'worked');
    try {
        $held->delete();
        check(false, 'a job that was taken away can be deleted');
    } catch (ServerException $gone) {
        check(str_contains($gone->getMessage(), 'NOT_FOUND'), $gone->getMessage());
    }
}

function buried_jobs_wait_for_a_kick(): void
{
    $manager = manager();
    $queue = $manager->getConnection();
    $queue->push('SendMail', ['to' => 'ann'], 'bad');
    $queue->pop('bad')->bury();
    same(0, $queue->size('bad'), 'size');
    same(1, $queue->getPheanstalk()->useTube('bad')->kick(10), 'kicked');
    worker($manager)->runNextJob('default', 'bad', options());
    same(['ann attempt 2'], Log::take(), 'worked');
}

function jobs_survive_a_kill_and_the_worker_comes_back(): void
{
    $manager = manager();
    $queue = $manager->getConnection();
    for ($i = 0; $i < 20; $i++) {
        $queue->push('SendMail', ['to' => "user $i"], 'kept');
    }
    $queue->pop('kept');
    restart_daemon();
    $worker = worker($manager);
    for ($i = 0; $i < 30; $i++) {
        $worker->runNextJob('default', 'kept', options(5));
        // An error of the connection stops a Laravel worker, and its supervisor starts another.
        if (Log::$errors !== []) {
            Log::$errors = [];
            $manager = manager();
            $worker = worker($manager);
        }
    }
    $lines = Log::take();
    same(20, count($lines), 'worked');
    check(str_starts_with($lines[0], 'user 0 attempt '), 'the first');
    same('user 19 attempt 1', $lines[19], 'the last');
}

run_tests(
    'pushed_jobs_are_worked_in_order',
    'failing_jobs_are_tried_again_and_then_given_up',
    'delayed_and_released_jobs_come_when_due',
    'several_queues_are_polled_by_rank',
    'a_job_of_a_lost_worker_is_tried_by_another',
    'a_job_over_its_time_is_tried_again',
    'buried_jobs_wait_for_a_kick',
    'jobs_survive_a_kill_and_the_worker_comes_back'
);
