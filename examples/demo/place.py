"""Where the tour happens: the cluster, the operator, the store and the application's pod; and what takes them away again."""
import json, os, pathlib, re, shutil, subprocess, sys, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "tests/cluster/cluster"
OPERATOR = "redoubt-system"
NAMESPACE = os.environ.get("NAMESPACE", "redoubt-demo")
# A line of life at least this often while something takes long.
TICK = 10


class Missing(Exception):
    """What is missing, and how to get it."""


def say(text=""):
    print(text, flush=True)


def run(*command, input=None, check=True):
    """Runs a command to its end; its output."""
    done = subprocess.run([str(word) for word in command], input=input, text=True, capture_output=True, cwd=ROOT)
    if check and done.returncode != 0:
        raise Missing(f"{' '.join(str(word) for word in command[:6])} …: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def kubectl(*arguments, **options):
    return run("kubectl", *arguments, **options)


def in_demo(*arguments, **options):
    return kubectl("-n", NAMESPACE, *arguments, **options)


def succeeds(*command):
    try:
        return subprocess.run([str(word) for word in command], capture_output=True, cwd=ROOT).returncode == 0
    except FileNotFoundError:
        return False


def shown(*command):
    """Runs a command whose output is its progress; where it is silent, says how long it has taken."""
    began, ended = time.monotonic(), threading.Event()

    def tick():
        while not ended.wait(TICK):
            say(f"    … {time.monotonic() - began:.0f} s")

    threading.Thread(target=tick, daemon=True).start()
    try:
        code = subprocess.run([str(word) for word in command], cwd=ROOT).returncode
    finally:
        ended.set()
    if code != 0:
        raise Missing(f"{' '.join(str(word) for word in command)} failed; what it said is above")


def until(what, condition, within=180):
    """Asks until `condition` gives something, and says what is waited for; how long that took. Its answer may be a pair of
    whether it holds and what there is to tell."""
    began = told = time.monotonic()
    words = ""
    while True:
        holds, now = condition()
        if holds:
            return time.monotonic() - began
        waited = time.monotonic() - began
        if (now and now != words) or time.monotonic() - told > TICK:
            say(f"    … {waited:3.0f} s: {now or what}")
            words, told = now, time.monotonic()
        if waited > within:
            raise Missing(f"not within {within} s: {what}. {now}\n"
                          f"See: kubectl -n {NAMESPACE} get sessionstores,datalayers,pods; kubectl -n {NAMESPACE} get events")
        time.sleep(0.1)


def answers():
    return succeeds("kubectl", "get", "--raw", "/readyz", "--request-timeout", "5s")


def is_development_cluster():
    """Whether the cluster in use is the one of tests/cluster: then this tree's image can be put onto its nodes."""
    own = re.search(r"KUBECONFIG=(\S+)", run("bash", "-c", f"unset KUBECONFIG; {CLUSTER} env", check=False))
    return own is not None and os.path.realpath(own[1].strip("'")) == os.path.realpath(os.environ.get("KUBECONFIG", ""))


def find_cluster(start):
    """Uses the cluster that KUBECONFIG names; else the development cluster, which is started if `start`. Whether it was."""
    if os.environ.get("KUBECONFIG") and not is_development_cluster():
        if not shutil.which("kubectl"):
            raise Missing("kubectl is missing: https://kubernetes.io/docs/tasks/tools/")
        if not answers():
            raise Missing(f"nothing answers at the cluster of KUBECONFIG={os.environ['KUBECONFIG']}: start it, or unset "
                          "KUBECONFIG to have a cluster of our own on this machine")
        return False
    if start and (os.geteuid() != 0 or not sys.platform.startswith("linux")):
        raise Missing("KUBECONFIG is not set, so no cluster is touched. Set it to one (kind, minikube, k3d, any), or run this "
                      "as root on Linux to have a cluster of three nodes started on this machine")
    # Its kubectl and helm come first in the path, as for everything that works with it.
    lines = run("bash", "-c", f'eval "$({CLUSTER} env)"; printf "%s\\n%s" "$KUBECONFIG" "$PATH"').splitlines()
    os.environ["KUBECONFIG"], os.environ["PATH"] = lines[0], lines[1]
    if succeeds(CLUSTER, "status"):
        return False
    if not start:
        raise Missing("no cluster is up: KUBECONFIG is not set, and the development cluster is down")
    say("There is no cluster: starting one with three nodes on this machine. The first time builds it, about ten minutes.")
    del os.environ["KUBECONFIG"]
    shown("make", "--no-print-directory", "cluster-up")
    os.environ["KUBECONFIG"] = lines[0]
    return True


def install_operator():
    """The operator by its charts, with this tree's image. One that is there already is used as it is. Whether it was installed."""
    if not shutil.which("helm"):
        raise Missing("helm is missing: https://helm.sh/docs/intro/install/")
    values, image = ["--values", "tests/e2e/values.yaml"], os.environ.get("IMAGE")
    if is_development_cluster() and not image:
        say("    building this tree's image and putting it onto the nodes")
        shown("make", "--no-print-directory", "image")
    if succeeds("kubectl", "-n", OPERATOR, "rollout", "status", "deployment/redoubt-operator", "--timeout=1s"):
        say("    an operator runs already, and is used as it is")
        return False
    if image:
        repository, _, tag = image.rpartition(":")
        values = ["--set", f"image.repository={repository},image.tag={tag}"]
    elif not is_development_cluster():
        raise Missing("this cluster needs an image that it can pull. Build one of this tree and name it:\n"
                      "  docker buildx build --push -t REGISTRY/redoubt:dev . && make demo IMAGE=REGISTRY/redoubt:dev")
    charts = ["--namespace", OPERATOR, "--create-namespace", "--wait", "--timeout", "120s"]
    crds = ["--take-ownership", "--server-side=true", "--force-conflicts"]
    shown("helm", "upgrade", "--install", "redoubt-crds", "charts/redoubt-crds", *charts, *crds, "--hide-notes")
    shown("helm", "upgrade", "--install", "redoubt", "charts/redoubt", *charts, *values, "--hide-notes")
    return True


def note(facts):
    """What this demo made, kept in its namespace for the run that removes it."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    kubectl("apply", "-f", "-", input=json.dumps(space))
    notes = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "demo"}}
    old = noted()
    notes["data"] = {**old, **{name: "yes" for name, made in facts.items() if made}}
    in_demo("apply", "-f", "-", input=json.dumps(notes))


def noted():
    return json.loads(in_demo("get", "configmap", "demo", "-o", "json", "--ignore-not-found") or "{}").get("data", {})


def condition(kind, name):
    """Whether a store or layer is Ready as it is declared now, and else what it waits for."""
    found = json.loads(in_demo("get", kind, name, "-o", "json"))
    for known in found.get("status", {}).get("conditions", []):
        if known["type"] == "Ready" and known.get("observedGeneration") == found["metadata"]["generation"]:
            return known["status"] == "True", f"{known['reason']}: {known['message']}"
    return False, "the operator has not looked at it yet"


def application(**bindings):
    """A pod with these Secrets mounted as bindings, of the operator's own image: the steps of the tour run in it."""
    operator = json.loads(kubectl("-n", OPERATOR, "get", "deployment", "redoubt-operator", "-o", "json"))
    pod = operator["spec"]["template"]["spec"]
    spec = {
        "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "imagePullSecrets": pod.get("imagePullSecrets", []),
        "volumes": [{"name": name, "secret": {"secretName": secret}} for name, secret in bindings.items()],
        "containers": [{
            "name": "application", "image": pod["containers"][0]["image"],
            "imagePullPolicy": pod["containers"][0]["imagePullPolicy"], "args": ["demo", "wait"],
            "volumeMounts": [{"name": name, "mountPath": f"/bindings/{name}", "readOnly": True} for name in bindings],
            "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]}},
        }],
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "application"}, "spec": spec}
    in_demo("delete", "pod", "application", "--ignore-not-found", "--wait=true")
    in_demo("create", "-f", "-", input=json.dumps(body))

    def runs():
        status = json.loads(in_demo("get", "pod", "application", "-o", "json")).get("status", {})
        container = next(iter(status.get("containerStatuses", [])), {})
        if container.get("restartCount") or "terminated" in container.get("state", {}):
            raise Missing("the application's pod does not stay: the operator that runs here is another version, whose image has "
                          f"no `redoubt demo`. Upgrade it, or run the demo elsewhere. {json.dumps(container.get('lastState'))}")
        waiting = container.get("state", {}).get("waiting", {}).get("reason", status.get("phase"))
        return "running" in container.get("state", {}), f"the application's pod: {waiting}"

    until("the application's pod runs", runs)


def take_down():
    """Ends what `make demo` made, and nothing else."""
    find_cluster(start=False)
    if not succeeds("kubectl", "get", "namespace", NAMESPACE):
        say(f"There is no demo here: no namespace {NAMESPACE}.")
        return
    made = noted()
    if made.get("cluster") == "yes":
        say("Ending the cluster that the demo started.")
        os.environ.pop("KUBECONFIG")
        shown(CLUSTER, "down")
        return
    say(f"Deleting the namespace {NAMESPACE}, with the store, its data layer and the volumes in it.")
    shown("kubectl", "delete", "namespace", NAMESPACE, "--timeout=120s")
    left = kubectl("get", "datalayers,sessionstores", "--all-namespaces", "-o", "name", check=False)
    if made.get("operator") == "yes" and left:
        say(f"The operator that the demo installed stays, because others use it now:\n{left}")
    elif made.get("operator") == "yes":
        say("Uninstalling the operator that the demo installed, and its definitions.")
        shown("helm", "uninstall", "redoubt", "--namespace", OPERATOR, "--wait")
        shown("helm", "uninstall", "redoubt-crds", "--namespace", OPERATOR)
        shown("kubectl", "delete", "crd", "-l", "app.kubernetes.io/part-of=redoubt")
        say(f"The namespace {OPERATOR} stays, with the key that passwords are derived from.")
    say("Gone.")
