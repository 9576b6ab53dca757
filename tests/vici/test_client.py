"""The client against a small server that speaks real frames; no test sleeps."""

from __future__ import annotations

import asyncio
import struct

import pytest

from ipsecctl.errors import ViciError, ViciRefused
from ipsecctl.vici import Client, connect_unix, encode_message
from ipsecctl.vici.codec import decode_message
from ipsecctl.vici.protocol import Kind

REQUEST, REGISTER, UNREGISTER = 0, 3, 4


def frame(packet: bytes) -> bytes:
    return struct.pack("!I", len(packet)) + packet


def reply(message=None, kind=Kind.RESPONSE) -> bytes:
    return frame(bytes([kind]) + encode_message(message or {}))


def event(name, message) -> bytes:
    return frame(bytes([Kind.EVENT, len(name)]) + name.encode() + encode_message(message))


CONFIRM = reply(kind=Kind.CONFIRM)
HANG = object()
CLOSE = object()


class Server:
    """Answers each packet with the next of its answers, and keeps what it was sent."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.packets = []
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                packet = await reader.readexactly(length)
                kind, size = packet[0], packet[1]
                self.packets.append((kind, packet[2 : 2 + size].decode(), decode_message(packet[2 + size :])))
                answer = self.answers.pop(0)
                if answer is CLOSE:
                    break
                if answer is not HANG:
                    writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def converse(tmp_path, server, talk, **options):
    """Run ``talk(client)`` against a server."""

    async def main():
        path = tmp_path / "charon.vici"
        listening = await asyncio.start_unix_server(server.serve, path)
        async with listening, connect_unix(path, **options) as client:
            return await asyncio.wait_for(talk(client), 10)

    return asyncio.run(main())


def test_a_command_and_its_answer(tmp_path):
    server = Server(reply({"version": "6.1.0", "list": ["a"]}))
    answer = converse(tmp_path, server, lambda c: c.command("version", {"key": ["value"]}))
    assert answer == {"version": "6.1.0", "list": ["a"]}
    assert server.packets == [(REQUEST, "version", {"key": [b"value"]})]


def test_commands_are_sent_ahead_and_answered_in_their_order(tmp_path):
    """The server has read four before it answers the first; what is refused does not stop the rest."""
    first_two = reply({"n": "0"}) + reply({"success": "no", "errmsg": "bad"})
    others = b"".join(reply({"n": str(n)}) for n in (2, 3, 4))
    server = Server(b"", b"", b"", first_two, others, reply({"version": "6.1.0"}))

    async def talk(client):
        answers = await client.commands("load-conn", [{"n": str(n)} for n in range(5)])
        return answers, await client.command("version")

    answers, version = converse(tmp_path, server, talk)
    first, refused, *rest = answers
    assert first == {"n": "0"}
    assert isinstance(refused, ViciRefused) and "bad" in str(refused)
    assert rest == [{"n": "2"}, {"n": "3"}, {"n": "4"}]
    assert version == {"version": "6.1.0"}
    assert [message["n"] for _, name, message in server.packets if name == "load-conn"] == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]


def test_many_commands_all_arrive(tmp_path):
    server = Server(*(reply({"n": str(n)}) for n in range(200)))
    answers = converse(tmp_path, server, lambda c: c.commands("x", [{"n": str(n)} for n in range(200)]))
    assert [answer["n"] for answer in answers] == [str(n) for n in range(200)]


def test_a_command_that_gets_no_answer_ends_the_others_too(tmp_path):
    server = Server(reply({}), HANG)

    async def talk(client):
        with pytest.raises(ViciError, match="did not answer 'x'"):
            await client.commands("x", [{}, {}, {}])
        with pytest.raises(ViciError, match="timed out at 'x'"):
            await client.command("version")

    server.answers += [HANG, HANG]
    converse(tmp_path, server, talk, timeout_s=0.05)


@pytest.mark.slow
def test_events_that_keep_coming_renew_the_limit_but_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("ipsecctl.vici.client._LONGEST", 3)

    class Trickle(Server):
        """Sends so many events, each well within the limit and all of them beyond it, and the end."""

        async def serve(self, reader, writer):
            serving = asyncio.create_task(super().serve(reader, writer))
            for n in range(self.events):
                await asyncio.sleep(0.05)
                if self.packets:
                    writer.write(event("list-sa", {str(n): {}}))
            writer.write(reply())
            await serving

    def listed(events):
        server = Trickle(CONFIRM, HANG, CONFIRM)
        server.events = events
        return converse(tmp_path, server, lambda c: c.stream("list-sas", "list-sa"), timeout_s=0.4)

    assert len(listed(14)) > 10
    with pytest.raises(ViciError, match="did not answer 'list-sas'"):
        listed(1000)


def test_raw_answers_are_bytes(tmp_path):
    answer = converse(tmp_path, Server(reply({"data": b"\xff"})), lambda c: c.command("x", raw=True))
    assert answer == {"data": b"\xff"}


def test_a_streamed_command_registers_collects_and_unregisters(tmp_path):
    sas = event("list-sa", {"a": {}}) + event("list-sa", {"b": {}}) + event("other", {}) + reply()
    server = Server(CONFIRM, sas, event("list-sa", {"late": {}}) + CONFIRM, reply({"ok": "1"}))

    async def talk(client):
        found = await client.stream("list-sas", "list-sa", {"noblock": "yes"})
        return found, await client.command("stats")

    found, stats = converse(tmp_path, server, talk)
    assert found == [{"a": {}}, {"b": {}}]
    assert stats == {"ok": "1"}
    assert [(kind, name) for kind, name, _ in server.packets] == [
        (REGISTER, "list-sa"),
        (REQUEST, "list-sas"),
        (UNREGISTER, "list-sa"),
        (REQUEST, "stats"),
    ]


def test_no_is_no_and_the_connection_stays_good(tmp_path):
    server = Server(
        reply({"success": "no", "errmsg": "not found"}),
        reply(kind=Kind.UNKNOWN_COMMAND),
        reply(kind=Kind.UNKNOWN_EVENT),
        reply({"success": "yes"}),
    )

    async def talk(client):
        with pytest.raises(ViciRefused, match="'unload-conn': not found"):
            await client.command("unload-conn", {"name": "x"})
        with pytest.raises(ViciRefused, match="does not know the command 'cheese'"):
            await client.command("cheese")
        with pytest.raises(ViciRefused, match="does not know the event 'wine'"):
            await client.stream("list-sas", "wine")
        return await client.command("version")

    assert converse(tmp_path, server, talk) == {"success": "yes"}


BAD = {
    "closed": CLOSE,
    "too long": struct.pack("!I", 512 * 1024 + 1),
    "unknown type": frame(b"\x09"),
    "garbled": frame(bytes([Kind.RESPONSE, 3, 200])),
    "a confirmation": CONFIRM,
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
def test_after_a_bad_answer_the_connection_is_never_used_again(tmp_path, answer):
    server = Server(answer, reply({"late": "yes"}))

    async def talk(client):
        with pytest.raises(ViciError):
            await client.command("version")
        with pytest.raises(ViciError, match="'stats' was not sent"):
            await client.command("stats")

    converse(tmp_path, server, talk)
    assert len(server.packets) == 1


def test_every_truncation_of_an_answer_is_an_error(tmp_path):
    whole = reply({"version": "6.1.0", "plugins": ["a", "b"], "s": {"k": "v"}})

    class Truncating(Server):
        async def serve(self, reader, writer):
            await reader.readexactly(4)
            writer.write(whole[: self.answers[self.connections]])
            self.connections += 1
            await writer.drain()
            writer.close()

    async def main():
        path = tmp_path / "charon.vici"
        server = Truncating(*range(len(whole)))
        listening = await asyncio.start_unix_server(server.serve, path)
        async with listening:
            for _ in range(len(whole)):
                async with connect_unix(path) as client:
                    with pytest.raises(ViciError):
                        await client.command("version", timeout_s=5)

    asyncio.run(main())


def test_a_hanging_charon_costs_the_time_limit_and_the_connection(tmp_path):
    server = Server(HANG, reply({"late": "yes"}))

    async def talk(client):
        with pytest.raises(ViciError, match=r"did not answer 'version' within 0\.05 s"):
            await client.command("version", timeout_s=0.05)
        with pytest.raises(ViciError, match="timed out at 'version'"):
            await client.command("stats")

    converse(tmp_path, server, talk)
    assert len(server.packets) == 1


def test_a_cancelled_command_takes_the_connection_with_it(tmp_path):
    async def talk(client):
        task = asyncio.create_task(client.command("version"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ViciError, match="broke at 'version'"):
            await client.command("stats")

    converse(tmp_path, Server(HANG), talk)


def test_values_are_checked_before_anything_is_sent(tmp_path):
    server = Server(reply({"fine": "yes"}))

    async def talk(client):
        with pytest.raises(TypeError):
            await client.command("load-conn", {"x": {"version": 2}})
        return await client.command("version")

    assert converse(tmp_path, server, talk) == {"fine": "yes"}
    assert len(server.packets) == 1


def test_tasks_that_share_a_connection_take_turns(tmp_path):
    server = Server(*(reply({"n": str(n)}) for n in range(20)))

    async def talk(client):
        return await asyncio.gather(*(client.command(f"c{n}") for n in range(20)))

    answers = converse(tmp_path, server, talk)
    assert [name for _, name, _ in server.packets] == [f"c{answer['n']}" for answer in answers]


def test_listening(tmp_path):
    server = Server(CONFIRM, CONFIRM + event("log", {"msg": "one"}) + event("child-updown", {"up": "yes"}))

    async def talk(client):
        heard = [item async for item in client.listen(("log", "child-updown"), quiet_s=0.05)]
        with pytest.raises(ViciError, match="used for listening"):
            await client.command("version")
        return heard

    assert converse(tmp_path, server, talk) == [("log", {"msg": "one"}), ("child-updown", {"up": "yes"})]


def test_a_listener_notices_the_end(tmp_path):
    async def talk(client):
        with pytest.raises(ViciError):
            async for _ in client.listen(("log", "x"), quiet_s=5):
                pass

    converse(tmp_path, Server(CONFIRM, CLOSE), talk)
    converse(tmp_path, Server(CONFIRM, CONFIRM + reply()), talk)


def test_a_closed_client_says_so(tmp_path):
    async def talk(client):
        await client.command("version")
        client.close()
        with pytest.raises(ViciError, match="was closed"):
            await client.command("version")

    converse(tmp_path, Server(reply()), talk)
    assert Client.__doc__
