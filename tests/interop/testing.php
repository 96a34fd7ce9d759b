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
