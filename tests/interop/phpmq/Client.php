<?php
// A php-mq client in the style of the published one: the socket never blocks, what is sent leaves
// in writes of at most 1,024 bytes, and it reads only when select says so.

declare(strict_types=1);

final class Client
{
    private const WRITE_BYTES_MAX = 1024;
    private const READ_BYTES_MAX = 8192;

    /** @var resource */
    private $socket;
    private string $unsent = '';
    private string $unread = '';
    private bool $ended = false;

    /**
     * @param ?int $revision packets of a dispatch are counted by this, as the published clients
     *                       do; null believes the header
     */
    public function __construct(string $address, private ?int $revision = 1)
    {
        $flags = STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT;
        $socket = stream_socket_client($address, $code, $error, 5, $flags);
        if ($socket === false) {
            throw new RuntimeException("$address: $error");
        }
        stream_set_blocking($socket, false);
        stream_set_write_buffer($socket, 0);
        stream_set_read_buffer($socket, 0);
        $this->socket = $socket;
    }

    public function send(string $queue, string $body, ?int $ttl = null, ?string $correlation = null): void
    {
        $packets = [['01', $queue], ['02', $body]];
        if ($ttl !== null) {
            $packets[] = ['05', (string) $ttl];
        }
        if ($correlation !== null) {
            $packets[] = ['06', $correlation];
        }
        $this->write('001', $packets);
    }

    public function consume(string $queue, int $window): void
    {
        $this->write('002', [['01', $queue], ['04', (string) $window]]);
    }

    /** @param array<string, string> $message as it was received */
    public function acknowledge(array $message): void
    {
        $this->write('004', [['01', $message['01']], ['03', $message['03']]]);
    }

    /** @param array<string, string> $message as it was received */
    public function requeue(array $message, int $ttl): void
    {
        $packets = [['01', $message['01']], ['03', $message['03']], ['05', (string) $ttl]];
        $this->write('005', $packets);
    }

    /** @param array<string, string> $message as it was received */
    public function deadLetter(array $message): void
    {
        $this->write('006', [['01', $message['01']], ['03', $message['03']]]);
    }

    public function raw(string $bytes): void
    {
        $this->unsent .= $bytes;
    }

    /** @param list<array{string, string}> $packets */
    private function write(string $type, array $packets): void
    {
        $this->unsent .= sprintf('H01%s%02d', $type, count($packets));
        foreach ($packets as [$kind, $content]) {
            $this->unsent .= sprintf('P%s%029d', $kind, strlen($content)) . $content;
        }
    }

    /** Whether everything was written. */
    public function isFlushed(): bool
    {
        return $this->unsent === '';
    }

    /** Writes what is waiting, whatever it takes within the time. */
    public function flush(float $seconds = 30): void
    {
        $end = microtime(true) + $seconds;
        while ($this->unsent !== '' && !$this->ended) {
            self::pump([$this], max(0, $end - microtime(true)));
            if (microtime(true) >= $end) {
                throw new RuntimeException('the server does not read');
            }
        }
    }

    /** Whether the server has closed the connection. */
    public function isEnded(): bool
    {
        return $this->ended;
    }

    public function close(): void
    {
        fclose($this->socket);
    }

    /**
     * One round: waits until something can be written or read on one of them, and does that.
     *
     * @param list<Client> $clients
     */
    public static function pump(array $clients, float $seconds): void
    {
        $read = $write = [];
        foreach ($clients as $index => $client) {
            if (!$client->ended) {
                $read[$index] = $client->socket;
                if ($client->unsent !== '') {
                    $write[$index] = $client->socket;
                }
            }
        }
        $none = null;
        $whole = (int) $seconds;
        $micro = (int) (($seconds - $whole) * 1e6);
        if ($read === [] || stream_select($read, $write, $none, $whole, $micro) < 1) {
            return;
        }
        foreach (array_keys($write) as $index) {
            $clients[$index]->writeSome();
        }
        foreach (array_keys($read) as $index) {
            $clients[$index]->readSome();
        }
    }

    private function writeSome(): void
    {
        $written = @fwrite($this->socket, substr($this->unsent, 0, self::WRITE_BYTES_MAX));
        if ($written === false) {
            $this->ended = true;
            return;
        }
        $this->unsent = substr($this->unsent, $written);
    }

    private function readSome(): void
    {
        $bytes = @fread($this->socket, self::READ_BYTES_MAX);
        if ($bytes === false || $bytes === '') {
            $this->ended = $bytes === false || feof($this->socket);
            return;
        }
        $this->unread .= $bytes;
    }

    /**
     * The next message that is whole, without waiting.
     *
     * @return ?array<string, string> its packets by type, and its own type as 'type'
     */
    public function next(): ?array
    {
        if (strlen($this->unread) < 8) {
            return null;
        }
        if (!preg_match('/^H01(\d{3})(\d{2})$/', substr($this->unread, 0, 8), $header)) {
            throw new RuntimeException('out of step: ' . bin2hex(substr($this->unread, 0, 8)));
        }
        $count = (int) $header[2];
        if ($header[1] === '003' && $this->revision !== null) {
            $count = $this->revision === 1 ? 3 : 4;
        }
        $message = ['type' => $header[1]];
        $at = 8;
        for ($packet = 0; $packet < $count; $packet++) {
            if (strlen($this->unread) < $at + 32) {
                return null;
            }
            $head = substr($this->unread, $at, 32);
            if (!preg_match('/^P(\d{2})(\d{29})$/', $head, $found)) {
                throw new RuntimeException('out of step: ' . bin2hex($head));
            }
            $length = (int) $found[2];
            if (strlen($this->unread) < $at + 32 + $length) {
                return null;
            }
            $message[$found[1]] = substr($this->unread, $at + 32, $length);
            $at += 32 + $length;
        }
        $this->unread = substr($this->unread, $at);
        return $message;
    }

    /**
     * The next message, null when none comes in time or the server closes.
     *
     * @return ?array<string, string>
     */
    public function receive(float $seconds = 10): ?array
    {
        $end = microtime(true) + $seconds;
        do {
            $message = $this->next();
            if ($message !== null || $this->ended) {
                return $message;
            }
            self::pump([$this], max(0, $end - microtime(true)));
        } while (microtime(true) < $end);
        return $this->next();
    }

    /** Waits until the server has closed the connection. */
    public function waitForEnd(float $seconds = 10): bool
    {
        $end = microtime(true) + $seconds;
        while (!$this->ended && microtime(true) < $end) {
            self::pump([$this], max(0, $end - microtime(true)));
        }
        return $this->ended;
    }
}
