"""An OpenAI-compatible server on 127.0.0.1 that costs next to nothing: for load tests and benchmarks.

    python benchmarks/loopback_server.py [--delay-ms TIME]

Prints its address. Models named `one...` give one answer whatever `n`, as many servers do. A call's usage is 10 prompt
tokens and 4 tokens an answer; `GET /tally` says what it has given in all.
"""

from __future__ import annotations

import argparse
import asyncio
import json


class Server:
    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._tally = {"calls": 0, "answers": 0, "prompt_tokens": 0, "completion_tokens": 0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lengths = [line for line in head.split("\r\n") if line.lower().startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
                answer = json.dumps(self._tally if head.startswith("GET /tally") else await self._complete(body))
                payload = answer.encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload)
                    + payload
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _complete(self, body: bytes) -> dict[str, object]:
        request = json.loads(body)
        n = 1 if request["model"].startswith("one") else request.get("n", 1)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        usage = {"prompt_tokens": 10, "completion_tokens": 4 * n}
        self._tally["calls"] += 1
        self._tally["answers"] += n
        for name, tokens in usage.items():
            self._tally[name] += tokens
        return {
            "id": "chatcmpl-loopback",
            "object": "chat.completion",
            "created": 1,
            "model": request["model"],
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": "The Marañón and the Ucayali."},
                    "finish_reason": "stop",
                }
                for index in range(n)
            ],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--delay-ms", type=float, default=0.0, help="time to an answer")
    options = parser.parse_args()
    server = await asyncio.start_server(Server(options.delay_ms / 1000).serve, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
