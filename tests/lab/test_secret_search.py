"""No secret is where it can be seen: seeds of each kind, and a search through all that commands leave."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from seeds import forms, found
from vault_server import TOKEN, FakeVault, serving

from ipsecctl import lab as labs
from ipsecctl.gateway import RECORD_PATH
from ipsecctl.patience import PATIENCE
from ipsecctl.secrets import IDENTITY_VARIABLE, generate_psk
from ipsecctl.store import lab_location

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("secret-search")]

SPOKES = ("file", "env", "age", "vault", "command", "cert")
TOPOLOGY = """\
ipsecctl: 1
name: search
defaults: {control: lab}
vault: {address: ADDRESS}
credentials:
  cert: {certificate: "pki/{gateway}.pem", key: "file:pki/{gateway}.key", ca: pki/ca.pem}
sites:
  dc: {networks: {servers: 10.10.0.0/24}, gateway: 198.51.100.10}
SITES
tunnels:
  file:
    between: [file, dc]
    credential: {psk: "file:secrets/file.psk"}
    ppk: {secret: "file:secrets/file.ppk"}
  env: {between: [env, dc], credential: {psk: "env:SEARCH_PSK"}}
  age: {between: [age, dc], credential: {psk: "age:secrets/age.age"}, ppk: {secret: "vault:ipsec/age#ppk"}}
  vault: {between: [vault, dc], credential: {psk: "vault:ipsec/vault#psk"}}
  command: {between: [command, dc], credential: {psk: {command: [sh, give.sh, "{tunnel}"]}}}
  cert: {between: [cert, dc], credential: cert}
"""


@dataclass
class Search:
    """A lab whose topology has a secret of each kind, and what was left in the open so far."""

    lab: Any
    folder: Path
    seeds: dict[str, bytes]
    environment: dict[str, str]
    seen: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        return str(self.folder / "topology.yaml")

    def look(self, place: str, content: bytes | str) -> None:
        self.seen += found(self.seeds, place, content)

    def run(self, *args: str, code: str = "", status: int = 0) -> str:
        """Run a command, look through what it says, and return that."""
        python = ["-c", code] if code else ["-m", "ipsecctl"]
        done = subprocess.run(
            [sys.executable, *python, *args],
            capture_output=True,
            text=True,
            timeout=120 * PATIENCE,
            check=False,
            env=self.environment,
        )
        assert done.returncode == status, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.look(f"standard output of {args}", done.stdout)
        self.look(f"standard error of {args}", done.stderr)
        self.said.append(args[0])
        return done.stdout + done.stderr


def private(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    path.write_bytes(content)
    path.chmod(0o600)


def scalar_of(key: Path) -> bytes:
    """Return the private number of an EC key, which any encoding of the key contains."""
    private_key: Any = load_pem_private_key(key.read_bytes(), None)
    numbers = private_key.private_numbers()
    return bytes(numbers.private_value.to_bytes((private_key.key_size + 7) // 8, "big"))


@pytest.fixture(scope="module")
def search(lab_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    folder = tmp_path_factory.mktemp("search")
    # The whole of what each secret is, by its name.
    psks = {name: generate_psk().encode() for name in ("file", "env", "age", "vault", "command")}
    ppks = {name: generate_psk().encode() for name in ("file", "age")}
    identity = pyrage.x25519.Identity.generate()
    private(folder / "secrets" / "file.psk", psks["file"] + b"\n")
    private(folder / "secrets" / "file.ppk", ppks["file"] + b"\n")
    private(folder / "secrets" / "command", psks["command"] + b"\n")
    private(folder / "identity.txt", f"{identity}\n".encode())
    (folder / "secrets" / "age.age").write_bytes(pyrage.encrypt(psks["age"], [identity.to_public()]))
    (folder / "give.sh").write_text('echo "asked for $1" >&2; cat secrets/$1\n')
    vault = FakeVault(
        {
            "secret/data/ipsec/vault": {"psk": psks["vault"].decode()},
            "secret/data/ipsec/age": {"ppk": ppks["age"].decode()},
        }
    )
    sites = "\n".join(
        f"  {name}: {{networks: {{lan: 10.20.{n}.0/24}}, gateway: 203.0.113.{n}}}"
        for n, name in enumerate(SPOKES, 10)
    )
    with serving(vault), pytest.MonkeyPatch.context() as patch:
        (folder / "topology.yaml").write_text(
            TOPOLOGY.replace("ADDRESS", f"'{vault.address}'").replace("SITES", sites)
        )
        (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
        patch.setenv("SEARCH_PSK", psks["env"].decode())
        patch.setenv("VAULT_TOKEN", TOKEN)
        patch.setenv(IDENTITY_VARIABLE, str(folder / "identity.txt"))
        for name in ("VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT"):
            patch.delenv(name, raising=False)
        with lab_of(labs.load(str(folder / "lab.yaml"))) as lab:
            seeds = {f"the PSK by {name}": psk for name, psk in psks.items()}
            seeds |= {f"the PPK of {name}": ppk for name, ppk in ppks.items()}
            seeds |= {"the token": TOKEN.encode(), "the age identity": str(identity).encode()}
            seeds |= {
                f"the key of {name}": scalar_of(folder / "pki" / f"{name}.key") for name in ("cert", "dc")
            }
            yield Search(lab, folder, seeds, {**os.environ})


class Processes(threading.Thread):
    """Notes the command lines of this machine's processes, those in containers, too, while a test acts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.lines: set[bytes] = set()
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.lines.add(process.read_bytes())
                except OSError:
                    continue

    def __enter__(self) -> Processes:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def test_the_search_finds_each_form() -> None:
    """The search itself: what it is to find is put before it, at each alignment and folded."""
    seed = b"Kq7x-Zp2L_w9+of/32~random=bytes!"
    hidden: dict[str, bytes] = {
        "raw": b"x" + seed,
        "hex": seed.hex().encode(),
        "HEX": seed.hex().upper().encode(),
        "base64 +0": base64.b64encode(seed + b"tail"),
        "base64 +1": base64.b64encode(b"a" + seed + b"tail"),
        "base64 +2": b"\n".join([*map(bytes, _cut(base64.b64encode(b"ab" + seed + b"x"), 20))]),
        "base64url +1": base64.urlsafe_b64encode(b"a" + seed),
        "percent, all": "".join(f"%{byte:02x}" for byte in seed).encode(),
    }
    for form, content in hidden.items():
        assert any(f" as {form} in " in each for each in found({"it": seed}, "there", content)), form
    assert set(hidden) <= set(forms(seed))
    assert found({"it": seed}, "there", b"nothing of it: Kq7x-Zp2L_w9") == []


def _cut(data: bytes, width: int) -> list[bytes]:
    return [data[at : at + width] for at in range(0, len(data), width)]


def test_no_secret_is_left_in_the_open(search: Search) -> None:
    file, out, lab = search.file, search.folder / "out", ("--lab", search.lab.lab.name)
    with Processes() as processes:
        for options in ((), ("--json",), ("--resolve",)):
            search.run("validate", file, *options)
            search.run("secret", "list", file, *options)
        search.run("render", file, "--out", str(out), "--json")
        for options in ((), ("--json",), ("--out", str(search.folder / "saved.plan"))):
            search.run("plan", file, *lab, *options)
        search.lab.apply()
        search.run("apply", file, *lab, "--yes", "--json")
        for options in ((), ("--json",)):
            search.run("status", file, *lab, *options)
        assert {sa["ppk"] for sa in ike_sas(search, "file")} == {True}
        # Another PSK, so that a change of secrets is shown and recorded, too.
        another = generate_psk().encode()
        private(search.folder / "secrets" / "file.psk", another)
        search.seeds["the PSK of later"] = another
        search.run("plan", file, *lab)
        search.run("apply", file, *lab, "--yes")
        search.run("history", *lab)
    assert any(b"ipsecctl" in line for line in processes.lines)
    search.look("the process list", b"\n".join(processes.lines))
    left_behind(search, out)
    on_gateways(search)
    assert search.seen == []


def ike_sas(search: Search, tunnel: str) -> list[Mapping[str, Any]]:
    told = json.loads(search.run("status", search.file, "--lab", search.lab.lab.name, "--json"))
    (there,) = [each for each in told["tunnels"] if each["name"] == tunnel]
    return [sa for end in there["ends"] for sa in end["ike_sas"]]


def left_behind(search: Search, out: Path) -> None:
    """Look through the store and saved plan, and through all that others may read."""
    store = lab_location(search.lab.lab.name, os.environ, root=os.geteuid() == 0).file
    assert store is not None
    kept = list(store.parent.glob(f"{store.name}*"))
    assert kept
    for path in (*kept, search.folder / "saved.plan"):
        search.look(str(path), path.read_bytes())
    rendered = [path for path in out.rglob("*") if path.is_file()]
    assert any(found(search.seeds, "", path.read_bytes()) for path in rendered), (
        "nothing rendered has a secret"
    )
    for path in (*rendered, *search.folder.iterdir()):
        if path.is_file() and path.stat().st_mode & 0o077:
            search.look(str(path), path.read_bytes())


def on_gateways(search: Search) -> None:
    """Look through each gateway's record and log, and through what others there may read of what is new."""
    for gateway in search.lab.managed:
        there = search.lab.sh(gateway, "cat /etc/swanctl/conf.d/ipsecctl-secrets.conf")
        assert found(search.seeds, "", there) or gateway == "cert", gateway
        search.look(f"the record of {gateway}", search.lab.sh(gateway, f"cat {RECORD_PATH}"))
        search.look(f"charon's log on {gateway}", search.lab.sh(gateway, "cat /var/log/charon.log"))
        places = "/etc /run /tmp /var /root /home"
        command = f"find {places} -xdev -type f -perm -004 -mmin -90 -exec cat {{}} +"
        done = labs.run(search.lab.lab, gateway, ["sh", "-c", command], b"", timeout_s=60 * PATIENCE)
        assert done.stdout
        search.look(f"what all may read on {gateway}", done.stdout)


FAILING = """
import sys
import {module} as module
def broken(*given, **named):
    raise RuntimeError("broken for the sake of the traceback")
module.{name} = broken
from ipsecctl.__main__ import main
sys.argv = ["ipsecctl", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    ("module", "name", "command"),
    [
        ("ipsecctl.deploy.prepare", "render_files", "plan"),
        ("ipsecctl.deploy.prepare", "plan_gateway", "plan"),
        ("ipsecctl.secrets.reading", "_psk", "plan"),
        ("ipsecctl.secrets.vault", "_said", "plan"),
    ],
)
def test_no_secret_is_in_a_traceback(search: Search, module: str, name: str, command: str) -> None:
    code = FAILING.format(module=module, name=name)
    if name == "_said":  # it is called where Vault refuses
        search.environment["VAULT_TOKEN"] = "hvs.revoked-0123456789-0123456789"
        search.seeds["the revoked token"] = b"hvs.revoked-0123456789-0123456789"
    try:
        said = search.run(command, search.file, "--lab", search.lab.lab.name, code=code, status=1)
    finally:
        search.environment["VAULT_TOKEN"] = TOKEN
    assert "broken for the sake of the traceback" in said
    assert search.seen == []


@pytest.mark.parametrize("what", ["token", "identity", "command", "variable"])
def test_no_secret_is_in_a_refusal(search: Search, what: str) -> None:
    """What is refused is named, what it is made of is not."""
    before = dict(search.environment)
    given = generate_psk()
    search.seeds[f"the wrong {what}"] = given.encode()
    if what == "token":
        search.environment["VAULT_TOKEN"] = given
    elif what == "identity":
        private(search.folder / "wrong.txt", given.encode())
        search.environment[IDENTITY_VARIABLE] = str(search.folder / "wrong.txt")
    elif what == "command":
        private(search.folder / "secrets" / "command", f"{given}\n{given}\n".encode())
    else:
        search.environment["SEARCH_PSK"] = f"{given}\n{given}"
    said = search.run("render", search.file, "--out", str(search.folder / "refused"), status=1)
    assert "error" in said
    assert search.seen == []
    search.environment = before
