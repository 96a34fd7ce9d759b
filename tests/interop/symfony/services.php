<?php

/**
 * What Messenger is given in the place of an application's container.
 */

declare(strict_types=1);

use Psr\Container\ContainerInterface;

/** The services that Messenger looks up by name. */
final class Services implements ContainerInterface
{
    private array $services;

    public function __construct(array $services)
    {
        $this->services = $services;
    }

    public function get($id)
    {
        return $this->services[$id];
    }

    public function has($id): bool
    {
        return isset($this->services[$id]);
    }
}
