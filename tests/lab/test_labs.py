"""Labs for real: containers, links and packets; and that nothing is left of them, however they end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsecctl.lab import Lab, NodeStatus, Role, Up, down, load, run, up
from ipsecctl.patience import PATIENCE
from ipsecctl.resources import resource_dir

from .conftest import LABS

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("labs")]

CHARON = "/usr/lib/ipsecctl-lab/charon"


def copy(folder: Path, name: str, called: str) -> Path:
    """Copy a lab and its topology, so that its credentials are made where nobody else's are."""
    (folder / "topologies").mkdir(exist_ok=True)
    shutil.copy(resource_dir("topologies") / f"{name}.yaml", folder / "topologies")
    return Path(shutil.copytree(resource_dir("labs") / name, folder / "labs" / called))


def ipsecctl(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ipsecctl", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=90 * PATIENCE, check=False
    )


def left_of(name: str) -> list[str]:
    """Return what Docker and the machine's firewall still have of a lab."""
    label = f"label=org.ipsecctl.lab={name}"
    found = []
    for command in (["ps", "--all"], ["network", "ls"]):
        listing = ["docker", *command, "--quiet", "--filter", label]
        found += subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    nft = ["docker", "run", "--rm", "--network", "host", "--cap-add", "NET_ADMIN", "--entrypoint", "nft"]
    tables = subprocess.run(
        [*nft, "ipsecctl-lab", "list", "tables"], capture_output=True, text=True, check=True
    )
    return found + [line for line in tables.stdout.splitlines() if line.endswith(f"ipsecctl-lab-{name}")]


def reaches(lab: Lab, node: str, address: str) -> bool:
    return run(lab, node, ["ping", "-n", "-q", "-c", "1", "-w", "2", address]).status == 0


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Up]]:
    lab = load(str(copy(tmp_path_factory.mktemp("clinic"), "clinic-dc", f"{LABS}-t-clinic")))
    down(lab.name)
    try:
        yield lab, up(lab)
    finally:
        down(lab.name)


# ------------------------------------------------------------------------------------------------- what it is


def test_it_comes_up_in_time_with_its_credentials(clinic: tuple[Lab, Up]) -> None:
    lab, done = clinic
    assert done.created
    assert done.seconds < 15 * PATIENCE
    assert [path.name for path in done.made] == ["clinics-clinic-a.psk", "clinics-clinic-b.psk"]
    assert done.status.healthy
    assert {node.name for node in done.status.nodes} == {node.name for node in lab.nodes}


def test_every_interface_has_the_addresses_and_mtu_of_the_plan(clinic: tuple[Lab, Up]) -> None:
    lab, done = clinic
    seen = {node.name: dict(node.addresses) for node in done.status.nodes}
    for node in lab.nodes:
        links = json.loads(run(lab, node.name, ["ip", "-json", "link", "show"]).stdout)
        mtus = {link["ifname"]: link["mtu"] for link in links}
        for interface in node.interfaces:
            assert seen[node.name][interface.name] == tuple(map(str, interface.addresses))
            assert mtus[interface.name] == interface.mtu


def test_the_data_path_is_the_one_that_this_kernel_has(clinic: tuple[Lab, Up]) -> None:
    lab, done = clinic
    has_esp = run(lab, "dc", ["/usr/lib/ipsecctl-lab/has-esp"]).status == 0
    gateways = [node for node in done.status.nodes if node.role == Role.GATEWAY]
    assert {node.data_path for node in gateways} == {"kernel" if has_esp else "libipsec"}


def test_who_reaches_whom(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    assert reaches(lab, "dc-servers", "10.10.8.10")  # the site's other network, through the gateway
    assert reaches(lab, "clinic-a", "198.51.100.10")  # gateways: each other
    assert reaches(lab, "clinic-b", "198.51.100.10")  # from behind the box
    assert not reaches(lab, "dc", "192.168.178.10")  # but not back in
    assert not reaches(lab, "dc", "192.0.2.99")  # nobody


def test_what_is_private_goes_nowhere_in_clear_but_is_seen(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    assert not reaches(lab, "dc-servers", "10.20.1.10")
    counter = run(lab, "internet", ["nft", "list", "counter", "inet", "internet", "private_source"]).stdout
    assert b"packets 0 " not in counter


def test_there_is_no_way_out_of_the_lab(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    inspect = [
        "docker",
        "network",
        "inspect",
        "bridge",
        "--format",
        "{{range .IPAM.Config}}{{.Gateway}}{{end}}",
    ]
    machine = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
    for node in ("dc", "dc-servers", "internet"):
        assert not reaches(lab, node, machine)
        assert not reaches(lab, node, "9.9.9.9")
        assert run(lab, node, ["getent", "hosts", "debian.org"]).status != 0


def test_ike_from_behind_the_box_comes_from_the_boxs_address(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    capture = [
        "docker",
        "exec",
        lab.container("dc"),
        "timeout",
        "6",
        "tcpdump",
        "-nlc1",
        "-i",
        "wan",
        "udp",
        "port",
        "500",
    ]
    with subprocess.Popen(capture, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tcpdump:
        assert tcpdump.stdout is not None
        assert tcpdump.stderr is not None
        while "listening" not in tcpdump.stderr.readline():
            pass
        run(lab, "clinic-b", ["socat", "-u", "-", "UDP:198.51.100.10:500,sourceport=4501"], b"x")
        assert "192.0.2.30.4501 > 198.51.100.10.500" in tcpdump.stdout.read()


def test_a_gateway_may_write_sysctls_of_its_own_network_only(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    assert run(lab, "dc", ["sysctl", "-w", "net.ipv4.conf.all.rp_filter=0"]).status == 0
    assert run(lab, "dc", ["sh", "-c", "echo x >/proc/sys/kernel/core_pattern"]).status != 0


# ------------------------------------------------------------------------------------------- the command line


def test_up_again_leaves_it_alone(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    before = run(lab, "dc", ["cat", "/proc/1/stat"]).stdout.split()[21]
    assert not up(lab).created
    assert run(lab, "dc", ["cat", "/proc/1/stat"]).stdout.split()[21] == before


def test_up_of_a_lab_that_changed_says_so(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    file = Path(lab.file)
    text = file.read_text()
    file.write_text(text.replace("10.10.8.104", "10.10.8.105"))
    try:
        answer = ipsecctl("lab", "up", file)
    finally:
        file.write_text(text)
    assert answer.returncode == 1
    assert "has changed since" in answer.stderr
    assert "--recreate" in answer.stderr


def test_exec_passes_input_output_and_status_through(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    answer = ipsecctl("lab", "exec", lab.name, "dc", "--", "sh", "-c", "tr a-z A-Z; exit 7", stdin="abc")
    assert (answer.returncode, answer.stdout) == (7, "ABC")
    answer = ipsecctl("lab", "exec", lab.name, "dc-server", "--", "true")
    assert answer.returncode == 1
    assert "Did you mean 'dc-servers'?" in answer.stderr


def status_of(lab: Lab) -> tuple[int, dict[str, dict[str, str]]]:
    answer = ipsecctl("lab", "status", lab.name, "--json")
    document = json.loads(answer.stdout)
    assert document["schema"] == "ipsecctl/lab-status/1"
    return answer.returncode, {node["name"]: node for node in document["labs"][0]["nodes"]}


def test_status_sees_a_charon_that_died(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    assert status_of(lab)[0] == 0
    run(lab, "clinic-a", [CHARON, "kill"])
    try:
        code, nodes = status_of(lab)
        assert code == 1
        assert (nodes["clinic-a"]["charon"], nodes["clinic-a"]["data_path"]) == ("down", "unknown")
        assert nodes["dc"]["charon"] == "running"
        answer = ipsecctl("lab", "up", lab.file)
        assert answer.returncode == 1
        assert "not well: clinic-a" in answer.stderr
    finally:
        run(lab, "clinic-a", [CHARON, "start"])


def test_status_of_a_lab_that_is_not_up() -> None:
    answer = ipsecctl("lab", "status", f"{LABS}-t-nothing", "--json")
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["labs"] == [{"name": f"{LABS}-t-nothing", "state": "down", "nodes": []}]


# ----------------------------------------------------------------------------------------------- side by side


def test_a_second_lab_with_the_same_addresses_is_no_trouble(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    twin = lab.called(f"{LABS}-t-twin")
    try:
        assert up(twin).status.healthy
        for one in (lab, twin):
            assert reaches(one, "clinic-b", "198.51.100.10")
        run(twin, "dc", ["ip", "link", "set", "wan", "down"])
        assert not reaches(twin, "clinic-b", "198.51.100.10")
        assert reaches(lab, "clinic-b", "198.51.100.10")
    finally:
        removed = down(twin.name)
    assert (removed.containers, removed.networks) == (len(lab.nodes), len(lab.links))
    assert removed.seconds < 6 * PATIENCE
    assert left_of(twin.name) == []
    assert reaches(lab, "clinic-b", "198.51.100.10")


def test_a_docker_network_with_addresses_of_the_lab_is_no_trouble(clinic: tuple[Lab, Up]) -> None:
    lab, _ = clinic
    name = "ipsecctl-test-clash"
    create = ["docker", "network", "create", "--subnet", "203.0.113.0/24", name]
    subprocess.run(
        create, capture_output=True, check=True
    )  # the machine has 203.0.113.1 now, and masquerades
    try:
        run(lab, "clinic-a", ["ip", "neigh", "flush", "all"])
        assert reaches(lab, "clinic-a", "203.0.113.1")
        assert reaches(lab, "clinic-a", "198.51.100.10")
    finally:
        subprocess.run(["docker", "network", "rm", name], capture_output=True, check=True)


def test_dual_stack_with_certificates(tmp_path: Path) -> None:
    lab = load(str(copy(tmp_path, "mesh-dual-stack", f"{LABS}-t-mesh")))
    try:
        done = up(lab)
        assert "ca.pem" in {path.name for path in done.made}
        assert reaches(lab, "north-lan", "fd00:1::1")
        assert not reaches(lab, "north-lan", "fd00:2::10")
    finally:
        down(lab.name)


def test_a_partners_gateway_is_configured_by_the_lab(tmp_path: Path) -> None:
    lab = load(str(copy(tmp_path, "partner", f"{LABS}-t-partner")))
    try:
        up(lab)
        loaded = run(lab, "labco", ["swanctl", "--list-conns", "--raw"]).stdout.decode()
        assert "intake-orders" in loaded
        assert b"hospital" not in run(lab, "hq", ["swanctl", "--list-conns", "--raw"]).stdout
        mode = run(lab, "labco", ["stat", "-c", "%a", "/etc/swanctl/conf.d/labco.conf"]).stdout
        assert mode == b"600\n"
    finally:
        down(lab.name)


# -------------------------------------------------------------------------------------------- nothing is left


@pytest.mark.parametrize(
    ("number", "containers"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 1), (signal.SIGINT, 6), (signal.SIGHUP, 8)],
)
def test_nothing_is_left_of_an_interrupted_up(
    tmp_path: Path, number: signal.Signals, containers: int
) -> None:
    """Interrupt it when so many containers are there: before Compose, as it begins, midway, at the end."""
    name = f"{LABS}-t-interrupt"
    lab = copy(tmp_path, "clinic-dc", name)
    for _ in range(4):
        status, said = interrupted_up(lab, name, number, containers)
        if status != 0:
            break
        down(name)  # on a busy machine it may be up before we have seen that it begins
    assert status == 128 + number
    assert f"interrupted: removing lab {name}" in said
    assert left_of(name) == []
    time.sleep(1)  # what Docker may still have been about to do
    assert left_of(name) == []


def interrupted_up(lab: Path, name: str, number: signal.Signals, containers: int) -> tuple[int, str]:
    """Begin to bring a lab up, and send a signal when so many containers are there."""
    # Whoever runs the tests may have SIGHUP ignored (nohup), and then so would what is run here.
    command = ["env", "--default-signal=HUP", sys.executable, "-m", "ipsecctl", "lab", "up", str(lab)]
    listing = ["docker", "ps", "--all", "--quiet", "--filter", f"label=org.ipsecctl.lab={name}"]
    psk = lab.parent.parent / "topologies" / "secrets" / "clinic-dc" / "clinics-clinic-b.psk"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30 * PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            there = subprocess.run(listing, capture_output=True, check=True).stdout.split()
            if psk.exists() and len(there) >= containers:
                break
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=40 * PATIENCE)
    return process.returncode, said


def test_nothing_is_left_when_a_file_is_refused(tmp_path: Path) -> None:
    lab = copy(tmp_path, "partner", f"{LABS}-t-refused")
    (lab / "labco.swanctl.conf").write_text("connections {\n  x {\n    proposals = nonsense\n  }\n}\n")
    answer = ipsecctl("lab", "up", lab)
    assert answer.returncode == 1
    assert "labco: " in answer.stderr
    assert "nonsense" in answer.stderr or "invalid" in answer.stderr
    assert left_of(f"{LABS}-t-refused") == []


def test_recreate_replaces_what_is_there_and_knows_it_by_label_only(tmp_path: Path) -> None:
    lab = copy(tmp_path, "partner", f"{LABS}-t-again")
    labels = ["--label", "org.ipsecctl=lab", "--label", f"org.ipsecctl.lab={LABS}-t-again"]
    create = [
        "docker",
        "run",
        "--detach",
        "--network",
        "none",
        *labels,
        "--name",
        f"ipsecctl-{LABS}-t-again-stray",
    ]
    subprocess.run([*create, "ipsecctl-lab"], capture_output=True, check=True)
    try:
        answer = ipsecctl("lab", "up", lab)
        assert answer.returncode == 1
        assert "is there, but not whole" in answer.stderr
        assert ipsecctl("lab", "up", lab, "--recreate").returncode == 0
    finally:
        answer = ipsecctl("lab", "down", f"{LABS}-t-again")
    assert f"Lab {LABS}-t-again is down: removed 7 containers, 6 networks" in answer.stderr
    assert left_of(f"{LABS}-t-again") == []
    assert ipsecctl("lab", "down", f"{LABS}-t-again").returncode == 0


def test_two_at_once_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    lab = copy(tmp_path, "partner", f"{LABS}-t-both")
    command = [sys.executable, "-m", "ipsecctl", "lab", "up", str(lab)]
    pair = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60 * PATIENCE)[1] for process in pair]
    try:
        assert sorted(process.returncode for process in pair) == [0, 1], said
        assert any(f"another ipsecctl is bringing lab {LABS}-t-both up or down" in text for text in said)
    finally:
        ipsecctl("lab", "down", f"{LABS}-t-both")
    assert left_of(f"{LABS}-t-both") == []


def test_a_node_is_healthy_only_when_it_and_its_charon_run() -> None:
    assert NodeStatus("x", "host", "running", "-", "-").healthy
    assert not NodeStatus("x", "host", "exited", "-", "-").healthy
    assert not NodeStatus("x", "gateway", "running", "down", "unknown").healthy
    assert not NodeStatus("x", "gateway", "running", "unknown", "unknown").healthy
