<?php

/**
 * What the PHP programs against a phpmqd of their own have in common: see with-phpmqd.py.
 */

declare(strict_types=1);

error_reporting(E_ALL & ~E_DEPRECATED);

const PATIENCE_SECONDS = 10;

/** Fails the running test unless this holds. */
function check(bool $holds, string $what): void
{
    if (!$holds) {
        throw new LogicException($what);
    }
}

function same($expected, $found, string $what): void
{
    $difference = json_encode($found) . ', not ' . json_encode($expected);
    check($expected === $found, $what . ': ' . $difference);
}

/** What the daemon's console answers to a line. */
function console(string $line): string
{
    $socket = stream_socket_client('unix://' . getenv('CONSOLE_SOCKET'));
    fwrite($socket, "plain\n$line\nquit\n");
    $answer = explode("\n\n", (string) stream_get_contents($socket));
    fclose($socket);

    return $answer[1] ?? '';
}

/** Waits until this holds. */
function eventually(string $what, callable $holds, float $seconds = PATIENCE_SECONDS): void
{
    $deadline = microtime(true) + $seconds;
    while (!$holds()) {
        check(microtime(true) < $deadline, "$what: it does not come to that");
        usleep(20000);
    }
}

/**
 * Runs workers of a script, one after the other as a supervisor does, while this holds.
 *
 * @return int how often one of them said on a line of its own that it began
 */
function supervise(callable $goes_on, string ...$arguments): int
{
    $began = 0;
    $deadline = microtime(true) + 6 * PATIENCE_SECONDS;
    while ($goes_on()) {
        check(microtime(true) < $deadline, 'the workers do not come to an end');
        $command = [PHP_BINARY, '-d', 'display_errors=0', '-d', 'log_errors=0', ...$arguments];
        $process = proc_open($command, [1 => ['pipe', 'w']], $pipes);
        $began += substr_count((string) stream_get_contents($pipes[1]), "began\n");
        proc_close($process);
    }

    return $began;
}

/** Kills the daemon without warning, and waits until it serves again. */
function restart_daemon(): void
{
    posix_kill((int) file_get_contents(getenv('PHPMQD_PID_FILE')), 9);
    $deadline = microtime(true) + PATIENCE_SECONDS;
    usleep(20000);
    while (!@fsockopen(getenv('BEANSTALK_HOST'), (int) getenv('BEANSTALK_PORT'))) {
        check(microtime(true) < $deadline, 'the daemon does not come back');
        usleep(20000);
    }
}

/** Runs all functions given by name, and ends the program. */
function run_tests(string ...$tests): void
{
    $failed = 0;
    foreach ($tests as $test) {
        try {
            $test();
            echo "ok    $test\n";
        } catch (Throwable $error) {
            $failed++;
            echo "FAIL  $test: ", get_class($error), ': ', $error->getMessage(),
                ' (', basename($error->getFile()), ':', $error->getLine(), ")\n";
        }
    }
    echo count($tests) - $failed, " passed, $failed failed\n";
    exit($failed > 0 ? 1 : 0);
}
