# SPDX-License-Identifier: MIT
"""As much of a cluster's API as server-side apply needs, for api_server.py: discovery, objects with their field
managers, custom resources, and workloads whose pods do what the test says."""
import copy
import itertools
import json
import re
import threading

BUILTIN = {
    "v1": [("Namespace", "namespaces", False), ("ConfigMap", "configmaps", True), ("Secret", "secrets", True),
           ("Service", "services", True), ("Endpoints", "endpoints", True), ("Pod", "pods", True)],
    "apps/v1": [("Deployment", "deployments", True)],
    "batch/v1": [("Job", "jobs", True)],
    "batch/v1beta1": [("CronJob", "cronjobs", True)],
    "apiextensions.k8s.io/v1": [("CustomResourceDefinition", "customresourcedefinitions", False)],
}
IDENTITY = {"apiVersion", "kind"}


class Problem(Exception):
    def __init__(self, code, message, **details):
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "status": "Failure", "code": code, "message": message, "details": details}


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, path + (key,))
    else:
        yield path, value


def look_up(tree, path):
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def put(tree, path, value):
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def drop(tree, path):
    for key in path[:-1]:
        tree = tree.get(key, {})
    tree.pop(path[-1], None)


class Stored:
    def __init__(self, uid):
        self.object = {"metadata": {"uid": uid}}
        self.managers = {}  # manager -> set of paths


class Cluster:
    def __init__(self, setting):
        self.setting = setting  # NAME, DEFAULT -> text, read anew each time
        self.lock = threading.RLock()
        self.versions = itertools.count(100)
        self.uids = itertools.count(1)
        self.objects = {}  # (api version, plural, namespace, name) -> Stored
        self.patches = 0
        for name in ("default", "kube-system"):
            self.apply("v1", "namespaces", None, name,
                       {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "server", True, False)

    # Discovery.

    def kinds(self):
        table = {version: list(kinds) for version, kinds in BUILTIN.items()}
        for (_, plural, _, _), stored in self.objects.items():
            if plural == "customresourcedefinitions" and stored.object.get("seen"):
                spec = stored.object["spec"]
                names = spec["names"]
                table.setdefault(f"{spec['group']}/{spec['versions'][0]['name']}", []).append(
                    (names["kind"], names["plural"], spec["scope"] == "Namespaced"))
        return table

    def groups(self):
        found = {}
        for version in self.kinds():
            if "/" in version:
                found.setdefault(version.split("/")[0], []).append({"groupVersion": version})
        return {"groups": [{"name": name, "versions": versions, "preferredVersion": versions[0]}
                           for name, versions in found.items()]}

    def resources(self, version):
        if version not in self.kinds():
            raise Problem(404, "the server could not find the requested resource")
        return {"groupVersion": version, "resources": [
            {"name": plural, "kind": kind, "namespaced": namespaced, "verbs": ["get", "list", "patch", "delete"]}
            for kind, plural, namespaced in self.kinds()[version]]}

    # Objects.

    def namespaced(self, version, plural):
        for _, name, namespaced in self.kinds().get(version, []):
            if name == plural:
                return namespaced
        raise Problem(404, "the server could not find the requested resource")

    def find(self, version, plural, namespace, name):
        self.namespaced(version, plural)
        stored = self.objects.get((version, plural, namespace, name))
        if not stored:
            raise Problem(404, f'{plural} "{name}" not found', kind=plural, name=name)
        return stored

    def apply(self, version, plural, namespace, name, body, manager, force, dry_run):
        if self.namespaced(version, plural) and ("v1", "namespaces", None, namespace) not in self.objects:
            raise Problem(404, f'namespaces "{namespace}" not found', kind="namespaces", name=namespace)
        refused = json.loads(self.setting("refuse", "{}")).get(name)
        if refused:
            raise Problem(refused["code"], refused["message"], **refused.get("details", {}))
        key = (version, plural, namespace, name)
        is_new = key not in self.objects
        stored = copy.deepcopy(self.objects[key]) if not is_new else Stored(f"uid-{next(self.uids)}")
        before = copy.deepcopy(stored.object)
        wanted = {path: value for path, value in leaves(body)}
        causes = []
        for path, value in wanted.items():
            for other, owned in stored.managers.items():
                if other != manager and path in owned and look_up(stored.object, path) != value:
                    if force:
                        owned.discard(path)
                    else:
                        causes.append({"reason": "FieldManagerConflict", "field": "." + ".".join(path),
                                       "message": f'conflict with "{other}" using {version}'})
        if causes:
            raise Problem(409, f"Apply failed with {len(causes)} conflict", causes=causes)
        others = set().union(*(owned for other, owned in stored.managers.items() if other != manager), set())
        for path in stored.managers.get(manager, set()) - set(wanted) - others:
            drop(stored.object, path)
        for path, value in wanted.items():
            put(stored.object, path, value)
        stored.managers[manager] = set(wanted)
        metadata = stored.object["metadata"]
        metadata["managedFields"] = [{"manager": m, "operation": "Apply"} for m in stored.managers]
        if is_new or stored.object != before:
            metadata["resourceVersion"] = str(next(self.versions))
        if not dry_run:
            self.objects[key] = stored
            if plural == "services":
                self.copy_labels(namespace, name, metadata.get("labels", {}))
        return (201 if is_new else 200), stored.object

    def copy_labels(self, namespace, name, labels):
        """What the controller of Endpoints does."""
        self.apply("v1", "endpoints", namespace, name,
                   {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name, "namespace": namespace,
                                                                        "labels": labels}}, "controller", True, False)

    def get(self, version, plural, namespace, name):
        shown = copy.deepcopy(self.find(version, plural, namespace, name).object)
        if plural == "customresourcedefinitions":
            # It is established when it is asked for a second time.
            stored = self.objects[version, plural, namespace, name].object
            shown["status"] = {"conditions": [{"type": "Established", "status": str(bool(stored.get("seen")))}]}
            stored["seen"] = True
        if plural == "deployments":
            wanted = shown["spec"].get("replicas", 1)
            ready = wanted if self.setting("pods", "ready") == "ready" else 0
            shown["status"] = {"replicas": wanted, "updatedReplicas": wanted, "availableReplicas": ready}
        if plural == "jobs":
            condition = "Complete" if self.setting("pods", "ready") == "ready" else "Failed"
            shown["status"] = {"conditions": [{"type": condition, "status": "True", "message": "Job has reached the "
                                               "specified backoff limit"}]}
        return shown

    def list(self, version, plural, namespace, query):
        self.namespaced(version, plural)
        if plural == "pods":
            return {"items": self.pods()}
        selector = re.fullmatch(r"([^=]+)(?:=(.*))?", query.get("labelSelector", "")) if query else None
        items = []
        for (v, p, n, _), stored in self.objects.items():
            labels = stored.object["metadata"].get("labels", {})
            fits = not selector or (selector[1] in labels and selector[2] in (None, labels[selector[1]]))
            if (v, p) == (version, plural) and namespace in (None, n) and fits:
                items.append(stored.object)
        return {"items": items}

    def pods(self):
        state = self.setting("pods", "ready")
        waiting = {"reason": state, "message": f"the container says {state}"}
        return [{"metadata": {"name": "web-1", "namespace": "default", "uid": "pod-1"},
                 "status": {"containerStatuses": [{"name": "main", "image": "nowhere/web:1", "restartCount": 9,
                                                   "state": {} if state == "ready" else {"waiting": waiting}}]}}]

    def delete(self, version, plural, namespace, name, options):
        stored = self.find(version, plural, namespace, name)
        if options.get("preconditions", {}).get("uid") != stored.object["metadata"]["uid"]:
            raise Problem(409, "the uid is another one")
        del self.objects[version, plural, namespace, name]
        return {"kind": "Status", "status": "Success"}

    # Requests.

    def answer(self, method, path, query, body):
        """Status and JSON value (or text)."""
        with self.lock:
            try:
                return self.route(method, path, query, body)
            except Problem as problem:
                return problem.code, problem.body

    def route(self, method, path, query, body):
        if path == "/apis":
            return 200, self.groups()
        if path.endswith("/log"):
            return 200, "the last line of the log\n"
        if path.endswith("/events"):
            return 200, {"items": [{"reason": "Failed", "message": "an event", "lastTimestamp": "2026-01-01T00:00:00Z"}]}
        parts = path.strip("/").split("/")
        depth = 2 if parts[0] == "api" else 3
        version, rest = "/".join(parts[1:depth]), parts[depth:]
        if not rest:
            return 200, self.resources(version)
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else None
        if method == "PATCH":
            self.patches += 1
            if self.patches == int(self.setting("die_at", "0")):
                raise SystemExit
            return self.apply(version, plural, namespace, name, json.loads(body), query["fieldManager"],
                              query.get("force") == "true", query.get("dryRun") == "All")
        if method == "DELETE":
            return 200, self.delete(version, plural, namespace, name, json.loads(body))
        return 200, self.get(version, plural, namespace, name) if name else self.list(version, plural, namespace, query)
