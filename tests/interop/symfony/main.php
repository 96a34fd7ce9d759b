<?php

/**
 * What a Symfony application does with its message bus over beanstalk.
 */

declare(strict_types=1);

require_once 'Symfony/Component/Messenger/autoload.php';
require_once 'Symfony/Component/Messenger/Bridge/Beanstalkd/autoload.php';
require_once 'Symfony/Component/EventDispatcher/autoload.php';
require_once 'Pheanstalk/autoload.php';
require_once __DIR__ . '/../testing.php';
require_once __DIR__ . '/services.php';

use Symfony\Component\EventDispatcher\EventDispatcher;
use Symfony\Component\Messenger\Bridge\Beanstalkd\Transport\BeanstalkdReceivedStamp;
use Symfony\Component\Messenger\Bridge\Beanstalkd\Transport\BeanstalkdTransport;
use Symfony\Component\Messenger\Bridge\Beanstalkd\Transport\BeanstalkdTransportFactory;
use Symfony\Component\Messenger\Envelope;
use Symfony\Component\Messenger\EventListener\SendFailedMessageForRetryListener;
use Symfony\Component\Messenger\EventListener\SendFailedMessageToFailureTransportListener;
use Symfony\Component\Messenger\EventListener\StopWorkerOnMessageLimitListener;
use Symfony\Component\Messenger\EventListener\StopWorkerOnTimeLimitListener;
use Symfony\Component\Messenger\Exception\TransportException;
use Symfony\Component\Messenger\Handler\HandlersLocator;
use Symfony\Component\Messenger\MessageBus;
use Symfony\Component\Messenger\Middleware\HandleMessageMiddleware;
use Symfony\Component\Messenger\Middleware\SendMessageMiddleware;
use Symfony\Component\Messenger\Retry\MultiplierRetryStrategy;
use Symfony\Component\Messenger\Stamp\DelayStamp;
use Symfony\Component\Messenger\Stamp\RedeliveryStamp;
use Symfony\Component\Messenger\Transport\Sender\SendersLocator;
use Symfony\Component\Messenger\Transport\Serialization\PhpSerializer;
use Symfony\Component\Messenger\Worker;

final class Invoice
{
    public int $number;
    public int $fails;

    public function __construct(int $number, int $fails = 0)
    {
        $this->number = $number;
        $this->fails = $fails;
    }
}

/** An application: a bus, its transport and what its worker did. */
final class App
{
    public array $handled = [];
    public MessageBus $bus;
    public BeanstalkdTransport $transport;
    public BeanstalkdTransport $failures;
    private Services $transports;

    public function __construct(string $tube, array $options = [])
    {
        $this->transport = transport($tube, $options);
        $this->failures = transport($tube . '-failed', $options);
        $this->transports = new Services(['main' => $this->transport, 'failed' => $this->failures]);
        $handle = function (Invoice $invoice): void {
            $this->handled[] = $invoice->number;
            if ($invoice->fails-- > 0) {
                throw new RuntimeException("invoice {$invoice->number} can not be printed");
            }
        };
        $senders = new SendersLocator([Invoice::class => ['main']], $this->transports);
        $this->bus = new MessageBus([
            new SendMessageMiddleware($senders),
            new HandleMessageMiddleware(new HandlersLocator([Invoice::class => [$handle]])),
        ]);
    }

    /** Works until so many messages came, or for so many seconds. */
    public function work(int $messages, int $seconds = 1, int $retries = 1): array
    {
        $strategy = new MultiplierRetryStrategy($retries, 1000, 1);
        $events = new EventDispatcher();
        $events->addSubscriber(new SendFailedMessageForRetryListener(
            new Services(['main' => $this->transport]),
            new Services(['main' => $strategy])
        ));
        $events->addSubscriber(new SendFailedMessageToFailureTransportListener(
            new Services(['main' => $this->failures])
        ));
        $events->addSubscriber(new StopWorkerOnMessageLimitListener($messages));
        $events->addSubscriber(new StopWorkerOnTimeLimitListener($seconds));
        $worker = new Worker(['main' => $this->transport], $this->bus, $events);
        $worker->run(['sleep' => 20000]);
        [$handled, $this->handled] = [$this->handled, []];

        return $handled;
    }
}

function transport(string $tube, array $options = []): BeanstalkdTransport
{
    $dsn = 'beanstalkd://' . getenv('BEANSTALK_HOST') . ':' . getenv('BEANSTALK_PORT');
    $options += ['tube_name' => $tube];

    return (new BeanstalkdTransportFactory())->createTransport($dsn, $options, new PhpSerializer());
}

function received(BeanstalkdTransport $transport): array
{
    return iterator_to_array(new ArrayIterator([...$transport->get()]));
}

function dispatched_messages_are_handled_in_order(): void
{
    $app = new App('invoices');
    for ($number = 1; $number <= 50; $number++) {
        $app->bus->dispatch(new Invoice($number));
    }
    same(50, $app->transport->getMessageCount(), 'count');
    same(range(1, 50), $app->work(50, 10), 'handled');
    same(0, $app->transport->getMessageCount(), 'count');
}

function received_messages_carry_the_id_of_their_job(): void
{
    $transport = transport('ids');
    $transport->send(new Envelope(new Invoice(1)));
    [$first] = received($transport);
    same(1, $first->getMessage()->number, 'message');
    $transport->ack($first);
    $transport->send(new Envelope(new Invoice(2)));
    [$second] = received($transport);
    check(job_id($second) > job_id($first), 'ids grow');
    $transport->reject($second);
    same(0, $transport->getMessageCount(), 'count');
}

function job_id(Envelope $envelope): int
{
    return (int) $envelope->last(BeanstalkdReceivedStamp::class)->getId();
}

function delays_of_messages_are_in_whole_seconds(): void
{
    $app = new App('delayed');
    $app->bus->dispatch(new Envelope(new Invoice(1), [new DelayStamp(1500)]));
    same([], received($app->transport), 'too early');
    $started = microtime(true);
    same([1], $app->work(1, 5), 'handled');
    $took = microtime(true) - $started;
    check($took > 0.8 && $took < 1.5, "after $took s");
}

function failed_messages_are_sent_again_and_then_aside(): void
{
    $app = new App('retries');
    $app->bus->dispatch(new Invoice(1, 9));
    $app->bus->dispatch(new Invoice(2, 0));
    same([1, 2, 1], $app->work(3, 5), 'handled');
    same(0, $app->transport->getMessageCount(), 'count');
    [$aside] = received($app->failures);
    same(1, $aside->getMessage()->number, 'set aside');
    check($aside->last(RedeliveryStamp::class) !== null, 'its story comes with it');
    $app->failures->ack($aside);
}

function a_message_over_its_time_comes_again(): void
{
    $app = new App('slow', ['ttr' => 1, 'timeout' => 3]);
    $app->bus->dispatch(new Invoice(1));
    [$held] = received($app->transport);
    $other = transport('slow', ['timeout' => 3]);
    [$again] = received($other);
    same(1, $again->getMessage()->number, 'message');
    try {
        $app->transport->ack($held);
        check(false, 'a message that was taken away can be acknowledged');
    } catch (TransportException $gone) {
        check(str_contains($gone->getMessage(), 'NOT_FOUND'), $gone->getMessage());
    }
    $other->ack($again);
}

function what_a_lost_worker_held_goes_to_the_next(): void
{
    $lost = transport('lost');
    $lost->send(new Envelope(new Invoice(1)));
    [$held] = received($lost);
    same([], received(transport('lost')), 'held by the other');
    unset($lost, $held);
    gc_collect_cycles();
    [$again] = received(transport('lost'));
    same(1, $again->getMessage()->number, 'message');
}

function messages_survive_a_kill(): void
{
    $app = new App('kept');
    for ($number = 1; $number <= 30; $number++) {
        $app->bus->dispatch(new Invoice($number));
    }
    same(range(1, 10), $app->work(10, 10), 'handled before');
    restart_daemon();
    same(20, (new App('kept'))->transport->getMessageCount(), 'count');
    same(range(11, 30), (new App('kept'))->work(20, 10), 'handled after');
}

run_tests(
    'dispatched_messages_are_handled_in_order',
    'received_messages_carry_the_id_of_their_job',
    'delays_of_messages_are_in_whole_seconds',
    'failed_messages_are_sent_again_and_then_aside',
    'a_message_over_its_time_comes_again',
    'what_a_lost_worker_held_goes_to_the_next',
    'messages_survive_a_kill'
);
