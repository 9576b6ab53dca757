"""SSH until it stands: host keys, logins, configuration, jump hosts, and servers that are none."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

import asyncssh
import pytest

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway.ssh import SshHost

USER = "netops"


# ------------------------------------------------------------------------------------------------ host keys


def other_key():
    return asyncssh.generate_private_key("ssh-ed25519")


def test_an_unknown_host(server):
    (server.home / ".ssh/known_hosts").write_text("somewhere-else ssh-ed25519 AAAA\nrubbish\n@odd x y\n")
    error = server.refusal()
    fingerprint = server.host_key.get_fingerprint()
    assert error.cause == (
        f"the host key of [127.0.0.1]:{server.port} is not known: it offers ssh-ed25519 {fingerprint}, "
        f"{server.home}/.ssh/known_hosts has none for it"
    )
    assert error.hint == (
        "On the gateway, see that it is its own: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub. "
        f"Then: ssh-keyscan -t ed25519 -p {server.port} 127.0.0.1 >> {server.home}/.ssh/known_hosts"
    )
    assert not server.commands


def test_a_name_is_not_known_by_its_address(server):
    async def prepared():
        await SshHost("gw", f"{USER}@localhost:{server.port}").run(["true"], timeout_s=20)

    cause = server.refusal(prepared).cause
    assert f"the host key of [localhost]:{server.port} is not known" in cause


@pytest.mark.parametrize("how", ["HostKeyAlias the-gateway", "ProxyJump 127.0.0.1:{port}"])
def test_an_unknown_host_that_a_scan_would_not_find(server, how):
    async def prepared():
        config = f"Host gw-a\n  HostName localhost\n  Port {server.port}\n  {how}\nHost *\n  User {USER}\n"
        (server.home / ".ssh/config").write_text(config.format(port=server.port))
        await SshHost("gw", "gw-a").run(["true"], timeout_s=20)

    error = server.refusal(prepared)
    assert error.hint.endswith("Then: ssh -o StrictHostKeyChecking=ask gw-a true, and say yes")


@pytest.mark.parametrize(
    "config",
    [
        "UserKnownHostsFile none\nGlobalKnownHostsFile none\n",
        "UserKnownHostsFile /dev/null\n",
        "StrictHostKeyChecking no\n",
        "StrictHostKeyChecking accept-new\n",
    ],
)
def test_no_configuration_makes_an_unknown_host_known(server, config):
    (server.home / ".ssh/known_hosts").write_text("")
    (server.home / ".ssh/config").write_text(config)
    assert "is not known" in server.refusal().cause
    assert (server.home / ".ssh/known_hosts").read_text() == ""


def test_a_host_key_that_has_changed(server):
    async def prepared():
        (server.home / ".ssh/known_hosts").write_text(f"# comment\n{server.line(other)}")
        await server.handle.run(["true"], timeout_s=20)

    other = other_key()
    error = server.refusal(prepared)
    assert error.cause == (
        f"the host key of [127.0.0.1]:{server.port} is not the one that is known: it offers ssh-ed25519 "
        f"{server.host_key.get_fingerprint()}, {server.home}/.ssh/known_hosts:2 has {other.get_fingerprint()}"
    )
    assert f"ssh-keygen -f {server.home}/.ssh/known_hosts -R '[127.0.0.1]:{server.port}'" in error.hint
    assert not server.commands


def test_a_revoked_host_key(server):
    async def prepared():
        (server.home / ".ssh/known_hosts").write_text(f"{server.known}@revoked {server.known}")
        await server.handle.run(["true"], timeout_s=20)

    server.port = 0

    async def main():
        with pytest.raises(GatewayUnreachable, match="revoked"):
            await prepared()

    server.during(main)


def test_a_host_key_of_another_kind_than_is_known(server):
    async def prepared():
        key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        (server.home / ".ssh/known_hosts").write_text(server.line(key))
        await server.handle.run(["true"], timeout_s=20)

    error = server.refusal(prepared)
    # Whoever sees first that there is nothing in common ends the connection.
    assert "have no algorithms in common" in error.cause or "ended the connection before" in error.cause
    assert "known_hosts" in error.hint and "ssh-keyscan 127.0.0.1" in error.hint


@pytest.mark.parametrize("where", ["global", "alias", "authority"])
def test_where_a_host_may_be_known(server, where):
    async def work():
        known = server.home / ".ssh/known_hosts"
        if where == "global":
            (server.folder / "ssh_known_hosts").write_text(known.read_text())
            known.unlink()
        elif where == "alias":
            known.write_text(server.known.replace(f"[127.0.0.1]:{server.port}", "the-gateway"))
            (server.home / ".ssh/config").write_text("HostKeyAlias the-gateway\n")
        else:
            known.write_text(f"@cert-authority * {authority.export_public_key().decode()}")
        assert (await server.handle.run(["echo", "in"])).stdout == b"in\n"

    authority = other_key()
    if where == "authority":
        cert = authority.generate_host_certificate(server.host_key, "gw", principals=["127.0.0.1"])
        server.host_key = (server.host_key, cert)
        (server.home / ".ssh/known_hosts").write_text("")
    server.during(work)


# ------------------------------------------------------------------------------------- the way, and the key


def test_a_key_that_is_not_accepted(server):
    (server.home / ".ssh/id_ed25519").write_bytes(other_key().export_private_key())
    error = server.refusal()
    assert error.cause.startswith(
        f"{USER}@127.0.0.1:{server.port} refuses the login: offered were ssh-ed25519"
    )
    assert "authorized_keys" in error.hint


# Made for this test; its passphrase is "geheim".
WITH_PASSPHRASE = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAzITpfWt
nxyhe6tj9hZB9RAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIOXy6OMLmVc4FhYL
1pQPpgfSx6eOGQMsSkxhdfFPjWZlAAAAkMqO0jQyLtKeBdhNRhtffwuRF90IyjJ0pX8B/+
ku0NnUuD7c3I/hgvdw8LkjYQCIy2nizxUyIaLyPXlkqZ3SsoVYuF4s7rHH3wjUSzr4in1v
idcWg4SJ5iaWLSILxZXtlfQMIsrDP4CHpX92yt8E4T/MzNjP6mBDzkl/ulPVWiPWjgcmE5
eu2VFN7VMKo7NAXw==
-----END OPENSSH PRIVATE KEY-----
"""


@pytest.mark.parametrize("passphrase", [False, True])
def test_no_key_at_all_and_one_that_wants_a_passphrase(server, passphrase):
    key = server.home / ".ssh/id_ed25519"
    key.unlink()
    if passphrase:
        key.write_text(WITH_PASSPHRASE)
        key.chmod(0o600)
    assert "refuses the login: there is no key to offer" in server.refusal().cause


def test_a_key_of_the_agent(server, monkeypatch):
    """An agent of this process: OpenSSH's protocol, with the one key in it."""
    (server.home / ".ssh/id_ed25519").unlink()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(server.folder / "agent"))

    async def agent(reader, writer):
        blob, comment = server.key.public_data, b"in the agent"
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                asked = await reader.readexactly(length)
                if asked[0] == 11:
                    answer = b"\x0c" + struct.pack("!I", 1) + _string(blob) + _string(comment)
                elif asked[0] == 13:
                    size = struct.unpack("!I", asked[1:5])[0]
                    rest = asked[5 + size :]
                    data = rest[4 : 4 + struct.unpack("!I", rest[:4])[0]]
                    answer = b"\x0e" + _string(server.key.sign(data, b"ssh-ed25519"))
                else:
                    answer = b"\x05"
                writer.write(_string(answer))
        writer.close()

    async def work():
        async with await asyncio.start_unix_server(agent, server.folder / "agent"):
            return (await server.handle.run(["echo", "in"])).stdout

    assert server.during(work) == b"in\n"


def _string(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def test_the_configuration_of_both_files_with_aliases_and_matches(server):
    async def work():
        (server.folder / "more").write_text(f"Host gw-a\n  Port {server.port}\n")
        (server.home / ".ssh/config").write_text(
            f"Include {server.folder}/more\nHost gw-a\n  HostName 127.0.0.1\nMatch user nobody\n  Port 1\n"
        )
        (server.folder / "ssh_config").write_text(f"Host *\n  User {USER}\n  Port 2\n")
        assert (await SshHost("gw", "gw-a").run(["echo", "in"])).stdout == b"in\n"

    server.during(work)


def test_a_configuration_that_cannot_be_read(server):
    (server.home / ".ssh/config").write_text("Port never\n")
    error = server.refusal()
    assert "the SSH configuration for 127.0.0.1 cannot be used" in error.cause
    assert error.hint.startswith("Try: ssh -G ")


def unreachable(target: str, timeout_s: float = 20) -> GatewayUnreachable:
    async def main():
        with pytest.raises(GatewayUnreachable) as caught:
            await SshHost("gw", target).run(["true"], timeout_s=timeout_s)
        return caught.value

    return asyncio.run(main())


def test_nobody_listens(server):
    error = unreachable("127.0.0.1:1")
    assert error.cause == "127.0.0.1 port 1 refuses connections"
    assert error.hint == "Is sshd running there (systemctl status ssh), and is that its port?"


def test_a_name_that_there_is_not(server):
    assert unreachable("gw.invalid").cause == "the name 'gw.invalid' cannot be resolved"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (None, r"takes connections, but its SSH server says nothing within \d"),
        (b"", "ended the connection before the login"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "ended the connection before the login"),
        (b"SSH-2.0-test\r\n", "ended the connection before the login"),
    ],
)
def test_what_is_no_ssh_server(server, said, cause):
    async def main():
        stop = asyncio.Event()

        async def serve(reader, writer):
            if said is None:
                await stop.wait()
            else:
                writer.write(said)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            with pytest.raises(GatewayUnreachable, match=cause) as caught:
                await SshHost("gw", f"127.0.0.1:{port}").run(["true"], timeout_s=1 if said is None else 20)
            stop.set()
        assert caught.value.hint

    asyncio.run(main())


def test_two_who_wait_for_one_connection_hear_the_same(server):
    async def main():
        handle = SshHost("gw", "127.0.0.1:1")
        said = await asyncio.gather(*(handle.run(["true"]) for _ in range(2)), return_exceptions=True)
        return {str(error) for error in said}

    assert asyncio.run(main()) == {"gw: 127.0.0.1 port 1 refuses connections"}


def test_gateways_behind_one_jump_host_share_its_connection(server):
    async def work():
        (server.home / ".ssh/config").write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {server.port}\n  User {USER}\n"
            f"Host gw-*\n  HostName 127.0.0.1\n  Port {server.port}\n  User {USER}\n  ProxyJump jump\n"
        )
        handles = [SshHost(name, name) for name in ("gw-a", "gw-b")]
        async with asyncio.TaskGroup() as group:
            for handle in handles:
                group.create_task(handle.run(["true"]))

    server.during(work)
    assert server.connections == 3  # the jump host's, and two through it


def test_a_jump_host_that_cannot_be_reached(server):
    (server.home / ".ssh/config").write_text("Host gw-a\n  ProxyJump 127.0.0.1:1\n")
    error = unreachable("gw-a")
    assert error.cause == "by its jump host: 127.0.0.1 port 1 refuses connections"


def test_a_jump_host_for_all_is_not_its_own(server):
    async def work():
        (server.home / ".ssh/config").write_text("Host *\n  ProxyJump 127.0.0.1\n")
        assert (await server.handle.run(["echo", "in"])).stdout == b"in\n"

    server.during(work)


# asyncssh does not wait for a command that has ended by itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_proxy_command_that_fails(server):
    (server.home / ".ssh/config").write_text(
        "Host gw-a\n  ProxyCommand false\nHost gw-b\n  ProxyCommand /no/such\n"
    )
    assert "the ProxyCommand to" in unreachable("gw-a").cause
    assert "the ProxyCommand of gw-b cannot be run: No such file" in unreachable("gw-b").cause
