<?php

/**
 * Symfony Messenger workers that die, time out and fail, under a policy of the daemon that they know
 * nothing of. Called with `work TUBE` this is the worker: messages that end it never come to its
 * retry strategy, so that it would handle them for ever.
 */

declare(strict_types=1);

require_once 'Symfony/Component/Messenger/autoload.php';
require_once 'Symfony/Component/Messenger/Bridge/Beanstalkd/autoload.php';
require_once 'Symfony/Component/EventDispatcher/autoload.php';
require_once 'Pheanstalk/autoload.php';
require_once __DIR__ . '/../testing.php';
require_once __DIR__ . '/services.php';

use Pheanstalk\Pheanstalk;
use Symfony\Component\EventDispatcher\EventDispatcher;
use Symfony\Component\Messenger\Bridge\Beanstalkd\Transport\BeanstalkdTransport;
use Symfony\Component\Messenger\Bridge\Beanstalkd\Transport\BeanstalkdTransportFactory;
use Symfony\Component\Messenger\Envelope;
use Symfony\Component\Messenger\EventListener\SendFailedMessageForRetryListener;
use Symfony\Component\Messenger\EventListener\StopWorkerOnMessageLimitListener;
use Symfony\Component\Messenger\EventListener\StopWorkerOnTimeLimitListener;
use Symfony\Component\Messenger\Handler\HandlersLocator;
use Symfony\Component\Messenger\MessageBus;
use Symfony\Component\Messenger\Middleware\HandleMessageMiddleware;
use Symfony\Component\Messenger\Retry\MultiplierRetryStrategy;
use Symfony\Component\Messenger\Transport\Serialization\PhpSerializer;
use Symfony\Component\Messenger\Worker;

const FAILED = 'failed';

final class Render
{
    public string $kind;

    public function __construct(string $kind)
    {
        $this->kind = $kind;
    }
}

function transport(string $tube, array $options = []): BeanstalkdTransport
{
    $dsn = 'beanstalkd://' . getenv('BEANSTALK_HOST') . ':' . getenv('BEANSTALK_PORT');
    $options += ['tube_name' => $tube, 'timeout' => 3];

    return (new BeanstalkdTransportFactory())->createTransport($dsn, $options, new PhpSerializer());
}

function handle(Render $message): void
{
    echo "began\n";
    switch ($message->kind) {
        case 'exit':
            exit;
        case 'slow':
            // Its time to run is a second; then its supervisor loses patience.
            sleep(2);
            posix_kill(getmypid(), 9);
        case 'error':
            throw new RuntimeException('the page has no end');
    }
}

/** One message, with a strategy that sends what fails again at once, once. */
function work(string $tube): void
{
    $transport = transport($tube);
    $bus = new MessageBus([
        new HandleMessageMiddleware(new HandlersLocator([Render::class => [handle(...)]])),
    ]);
    $events = new EventDispatcher();
    $events->addSubscriber(new SendFailedMessageForRetryListener(
        new Services(['main' => $transport]),
        new Services(['main' => new MultiplierRetryStrategy(1, 0, 1)])
    ));
    $events->addSubscriber(new StopWorkerOnMessageLimitListener(1));
    $events->addSubscriber(new StopWorkerOnTimeLimitListener(5));
    (new Worker(['main' => $transport], $bus, $events))->run(['sleep' => 20000]);
}

if (($argv[1] ?? '') === 'work') {
    work($argv[2]);
    exit(0);
}

function facts(string $tube): array
{
    $pheanstalk = Pheanstalk::create(getenv('BEANSTALK_HOST'), (int) getenv('BEANSTALK_PORT'));
    try {
        return $pheanstalk->statsTube($tube)->getArrayCopy();
    } catch (\Pheanstalk\Exception\ServerException $none) {
        return ['current-jobs-ready' => '0', 'current-jobs-delayed' => '0'];
    }
}

function dead(): int
{
    return (int) facts(FAILED)['current-jobs-ready'];
}

/** What the first message of a tube was told to wait, in seconds; 0 where there is none. */
function wait_in(string $tube): int
{
    $pheanstalk = Pheanstalk::create(getenv('BEANSTALK_HOST'), (int) getenv('BEANSTALK_PORT'));
    $pheanstalk->useTube($tube);
    $job = $pheanstalk->peekDelayed() ?? $pheanstalk->peekReady();

    return $job === null ? 0 : (int) $pheanstalk->statsJob($job)['delay'];
}

/** Lets workers come and go until one more message is a dead letter: the waits between, in seconds. */
function die_of(string $tube): array
{
    [$before, $waits, $is_first] = [dead(), [], true];
    $goes_on = function () use ($tube, $before, &$waits, &$is_first): bool {
        $wait = wait_in($tube);
        if (!$is_first && $wait > 0) {
            $waits[] = $wait;
        }
        $is_first = false;

        return dead() === $before;
    };
    $began = supervise($goes_on, __FILE__, 'work', $tube);
    check($began <= 3, "$began attempts");

    return $waits;
}

function a_message_whose_handler_exits_is_set_aside_and_waits_in_between(): void
{
    transport('pages-exit')->send(new Envelope(new Render('exit')));
    same([1, 2], die_of('pages-exit'), 'waits');
}

function a_message_over_its_time_is_set_aside(): void
{
    transport('pages-slow', ['ttr' => 1])->send(new Envelope(new Render('slow')));
    same([1, 2], die_of('pages-slow'), 'waits');
}

function healthy_messages_are_handled_while_a_bad_one_waits(): void
{
    $transport = transport('pages-mixed');
    $transport->send(new Envelope(new Render('exit')));
    for ($i = 0; $i < 3; $i++) {
        $transport->send(new Envelope(new Render('good')));
    }
    supervise(fn () => (int) facts('pages-mixed')['current-jobs-ready'] > 0, __FILE__, 'work', 'pages-mixed');
    same('1', facts('pages-mixed')['current-jobs-delayed'], 'delayed');
    die_of('pages-mixed');
}

function a_message_that_fails_is_sent_again_by_its_own_strategy_as_before(): void
{
    transport('pages-error')->send(new Envelope(new Render('error')));
    $before = dead();
    $worked = 0;
    supervise(function () use (&$worked): bool {
        return $worked++ < 2;
    }, __FILE__, 'work', 'pages-error');
    same($before, dead(), 'dead letters');
    same(0, transport('pages-error')->getMessageCount(), 'messages');
}

function a_kick_brings_dead_messages_back_to_where_they_came_from(): void
{
    $count = dead();
    same("OK, $count kicked", console('kick ' . FAILED . ' 100'), 'kick');
    same(0, dead(), 'dead letters');
    foreach (['pages-exit', 'pages-slow', 'pages-mixed'] as $tube) {
        same('1', facts($tube)['current-jobs-ready'], $tube);
    }
    same([1, 2], die_of('pages-exit'), 'waits');
}

run_tests(
    'a_message_whose_handler_exits_is_set_aside_and_waits_in_between',
    'a_message_over_its_time_is_set_aside',
    'healthy_messages_are_handled_while_a_bad_one_waits',
    'a_message_that_fails_is_sent_again_by_its_own_strategy_as_before',
    'a_kick_brings_dead_messages_back_to_where_they_came_from'
);
