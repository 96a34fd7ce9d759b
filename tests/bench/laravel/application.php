<?php

/**
 * As much of a Laravel application as its queue needs, over beanstalk or over an SQLite database.
 *
 * QUEUE says which: a port of the loopback address, or the path of the database.
 */

declare(strict_types=1);

require_once 'Illuminate/Queue/autoload.php';
require_once 'Illuminate/Events/autoload.php';
require_once 'Illuminate/Bus/autoload.php';
require_once 'Illuminate/Database/autoload.php';
require_once 'Pheanstalk/autoload.php';

use Illuminate\Bus\Dispatcher as Bus;
use Illuminate\Container\Container;
use Illuminate\Contracts\Bus\Dispatcher as BusContract;
use Illuminate\Contracts\Container\Container as ContainerContract;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Events\Dispatcher as EventsContract;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Database\ConnectionResolver;
use Illuminate\Database\SQLiteConnection;
use Illuminate\Events\Dispatcher as Events;
use Illuminate\Queue\Capsule\Manager;
use Illuminate\Queue\Connectors\BeanstalkdConnector;
use Illuminate\Queue\Connectors\DatabaseConnector;

/** A job that notes how long it took to get here, in microseconds since it was due. */
final class Timed implements ShouldQueue
{
    public static array $latencies = [];
    public static int $first = 0;
    public static int $last = 0;

    public function __construct(private int $number, private int $dueNs)
    {
    }

    public function handle(): void
    {
        self::$last = hrtime(true);
        self::$first = self::$first ?: self::$last;
        self::$latencies[$this->number] = intdiv(self::$last - $this->dueNs, 1000);
    }
}

/** The last job of a worker: each takes one. */
final class Stop implements ShouldQueue
{
    public function handle(): void
    {
        Container::getInstance()['worker']->shouldQuit = true;
    }
}

/** A failure in this benchmark makes its figures worthless: say so and end. */
final class Failing implements ExceptionHandler
{
    public function report(Throwable $e)
    {
        fwrite(STDERR, "$e\n");
        exit(1);
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

/**
 * SQLite as it serves several workers best: what reads a job and then marks it takes the lock at
 * once. Else two that have read refuse each other, and each sleeps a second.
 */
final class ImmediatePdo extends PDO
{
    public function __construct(string $path)
    {
        parent::__construct('sqlite:' . $path, null, null, [PDO::ATTR_TIMEOUT => 60]);
        $this->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
        // What a crash of the program loses nothing with, as with durability "write".
        $this->exec('PRAGMA journal_mode = WAL');
        $this->exec('PRAGMA synchronous = NORMAL');
        $this->exec('CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY AUTOINCREMENT,'
            . ' queue VARCHAR NOT NULL, payload TEXT NOT NULL, attempts INTEGER NOT NULL,'
            . ' reserved_at INTEGER, available_at INTEGER NOT NULL, created_at INTEGER NOT NULL)');
        $this->exec('CREATE INDEX IF NOT EXISTS jobs_queue_index ON jobs (queue)');
    }

    public function beginTransaction(): bool
    {
        return $this->exec('BEGIN IMMEDIATE') !== false;
    }

    public function commit(): bool
    {
        return $this->exec('COMMIT') !== false;
    }

    public function rollBack(): bool
    {
        return $this->exec('ROLLBACK') !== false;
    }
}

function application(): Manager
{
    $container = new Container();
    Container::setInstance($container);
    $container->instance(ContainerContract::class, $container);
    $events = new Events($container);
    $container->instance('events', $events);
    $container->instance(EventsContract::class, $events);
    $container->instance(ExceptionHandler::class, new Failing());
    $container->instance(BusContract::class, new Bus($container));
    $manager = new Manager($container);
    $where = (string) getenv('QUEUE');
    if (ctype_digit($where)) {
        $manager->addConnector('beanstalkd', fn () => new BeanstalkdConnector());
        $manager->addConnection([
            'driver' => 'beanstalkd',
            'host' => '127.0.0.1',
            'port' => (int) $where,
            'queue' => 'default',
            'retry_after' => 90,
            'block_for' => 5,
        ]);
    } else {
        $connection = new SQLiteConnection(new ImmediatePdo($where), $where);
        $resolver = new ConnectionResolver(['jobs' => $connection]);
        $manager->addConnector('database', fn () => new DatabaseConnector($resolver));
        $manager->addConnection([
            'driver' => 'database',
            'connection' => 'jobs',
            'table' => 'jobs',
            'queue' => 'default',
            'retry_after' => 90,
        ]);
    }

    return $manager;
}
