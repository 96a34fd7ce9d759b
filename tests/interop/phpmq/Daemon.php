<?php
// Starts and stops the daemon under test, in a folder of its own.

declare(strict_types=1);

final class Daemon
{
    private const START_SECONDS_MAX = 20;

    public readonly string $folder;
    /** @var array<string, string> addresses by transport */
    public array $addresses = [];
    /** @var ?resource */
    private $process = null;

    public function __construct(private string $program)
    {
        $this->folder = sys_get_temp_dir() . '/phpmqd-interop-' . bin2hex(random_bytes(6));
        mkdir($this->folder, 0700);
        $this->start();
    }

    public function start(): void
    {
        $log = $this->folder . '/log';
        file_put_contents($log, '');
        file_put_contents($this->folder . '/phpmqd.toml', <<<'TOML'
            [[policy]]
            queues = "poisoned"
            max_attempts = 2
            dead_letter = "poison"
            TOML);
        $arguments = [
            $this->program, '--config', $this->folder . '/phpmqd.toml', '--database', $this->folder . '/phpmq.db',
            '--listen', 'phpmq=127.0.0.1:0',
            '--listen', 'phpmq=unix:' . $this->folder . '/phpmq.sock',
            '--listen', 'console=unix:' . $this->folder . '/console.sock',
        ];
        $process = proc_open($arguments, [['file', '/dev/null', 'r'], ['file', $log, 'a'], ['file', $log, 'a']], $pipes);
        if ($process === false) {
            throw new RuntimeException('the daemon does not start');
        }
        $this->process = $process;
        $end = microtime(true) + self::START_SECONDS_MAX;
        do {
            $said = (string) file_get_contents($log);
            $ready = preg_match('/listening.*127\.0\.0\.1:(\d+)/', $said, $found)
                && @stream_socket_client('unix://' . $this->folder . '/console.sock') !== false;
            if (!$ready && (microtime(true) > $end || !proc_get_status($process)['running'])) {
                throw new RuntimeException("the daemon is not ready:\n$said");
            }
            usleep($ready ? 0 : 10_000);
        } while (!$ready);
        $this->addresses = [
            'tcp' => "tcp://127.0.0.1:{$found[1]}",
            'unix' => 'unix://' . $this->folder . '/phpmq.sock',
        ];
    }

    /** Sends the signal and waits for the end; the exit code, -1 when the signal killed it. */
    public function stop(int $signal = 15): int
    {
        if ($this->process === null) {
            return 0;
        }
        proc_terminate($this->process, $signal);
        $end = microtime(true) + 20;
        do {
            $status = proc_get_status($this->process);
            if ($status['running'] && microtime(true) > $end) {
                throw new RuntimeException('the daemon does not stop');
            }
            usleep($status['running'] ? 10_000 : 0);
        } while ($status['running']);
        proc_close($this->process);
        $this->process = null;
        return $status['exitcode'];
    }

    /** What the console answers to these lines in plain mode. */
    public function console(string ...$lines): string
    {
        $socket = stream_socket_client('unix://' . $this->folder . '/console.sock', timeout: 5);
        fwrite($socket, "plain\n" . implode("\n", $lines) . "\nquit\n");
        $answer = (string) stream_get_contents($socket);
        fclose($socket);
        return $answer;
    }

    /** A figure of the console's status. */
    public function figure(string $name): int
    {
        $said = $this->console('status');
        if (!preg_match('/^' . preg_quote($name, '/') . ': (\d+)$/m', $said, $found)) {
            throw new RuntimeException("no $name in:\n$said");
        }
        return (int) $found[1];
    }

    /** Waits until a figure of the console's status is so. */
    public function waitForFigure(string $name, int $wanted, float $seconds = 15): bool
    {
        $end = microtime(true) + $seconds;
        while (($figure = $this->figure($name)) !== $wanted) {
            if (microtime(true) > $end) {
                fwrite(STDERR, "$name is $figure, not $wanted\n");
                return false;
            }
            usleep(20_000);
        }
        return true;
    }

    public function clean(): void
    {
        foreach (glob($this->folder . '/*') ?: [] as $file) {
            unlink($file);
        }
        rmdir($this->folder);
    }
}
