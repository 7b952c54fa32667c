"""Messages over a socket between two processes, whole or not at all."""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("!Q")
_CHUNK = 1 << 20


class Channel:
    """One end of a socket; a message is its length and its bytes.

    Unlike a :class:`multiprocessing.connection.Connection` it can be read without blocking on a
    message whose sender was stopped or killed in the middle of it.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket, self._buffer = end, bytearray()

    def fileno(self) -> int:
        """Return its file descriptor, which is readable when there is something to receive."""
        return self._socket.fileno()

    def send(self, content: bytes) -> None:
        """Send a message.

        Raises:
            OSError: the other end is gone.
        """
        self._socket.sendall(_HEADER.pack(len(content)))
        self._socket.sendall(content)

    def receive(self) -> bytes:
        """Return the next message, when it has come.

        Raises:
            EOFError, OSError: the other end is gone.
        """
        while (message := self._next()) is None:
            self._read(0)
        return message

    def poll(self) -> bytes | None:
        """Return the next message if it has come, else None.

        Raises:
            EOFError, OSError: the other end is gone, and all it sent was returned.
        """
        while (message := self._next()) is None:
            try:
                self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
        return message

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _read(self, flags: int) -> None:
        chunk = self._socket.recv(_CHUNK, flags)
        if not chunk:
            raise EOFError
        self._buffer += chunk

    def _next(self) -> bytes | None:
        start = _HEADER.size
        if len(self._buffer) < start:
            return None
        end = start + _HEADER.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        message = bytes(memoryview(self._buffer)[start:end])
        del self._buffer[:end]
        return message
