#!/bin/sh
# Exits with 0 if the server answers PING with +PONG, and with 1 otherwise.
# Usage: healthcheck.sh [ADDRESS]
echo PING |
    lineframe send --connect-timeout 1s --timeout 1s --expect '^\+PONG$' "${1:-127.0.0.1:6379}" >/dev/null ||
    exit 1
