"""The Python client's own calls against the cluster of a kubeconfig: see README.md."""
import sys
import threading
import uuid

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

failures = 0


def check(what, passed, shown=""):
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}" + ("" if passed else f": {shown}"))


def code(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
        return 200
    except ApiException as error:
        return error.status


def typed(namespace):
    core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()
    meta = client.V1ObjectMeta(name="c", labels={"app": "c"})
    made = core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=meta, data={"a": "1"}))
    check("create", made.data == {"a": "1"} and made.metadata.uid)
    again = client.V1ConfigMap(metadata=meta)
    check("create again is a conflict", code(core.create_namespaced_config_map, namespace, again) == 409)
    changed = core.patch_namespaced_config_map("c", namespace, {"data": {"b": "2"}})
    check("strategic merge patch", changed.data == {"a": "1", "b": "2"}, changed.data)
    changed = core.patch_namespaced_config_map("c", namespace, [{"op": "remove", "path": "/data/a"}])
    check("JSON patch", changed.data == {"b": "2"}, changed.data)
    made.data = {"x": "y"}
    check("update of an old version is a conflict", code(core.replace_namespaced_config_map, "c", namespace, made) == 409)
    container = client.V1Container(name="c", image="image:1", ports=[client.V1ContainerPort(container_port=80)])
    template = client.V1PodTemplateSpec(metadata=meta, spec=client.V1PodSpec(containers=[container]))
    spec = client.V1DeploymentSpec(replicas=0, selector={"matchLabels": {"app": "c"}}, template=template)
    deployment = apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=meta, spec=spec))
    check("defaults", deployment.spec.template.spec.restart_policy == "Always" and deployment.spec.strategy.type == "RollingUpdate")
    scale = apps.patch_namespaced_deployment_scale("c", namespace, {"spec": {"replicas": 1}})
    check("scale", scale.spec.replicas == 1, scale)
    found = apps.list_namespaced_deployment(namespace, label_selector="app=c", field_selector="metadata.name=c")
    check("list by selectors", len(found.items) == 1)
    job = client.V1JobSpec(template=client.V1PodTemplateSpec(spec=client.V1PodSpec(containers=[container], restart_policy="Never")), suspend=True)
    check("a Job", batch.create_namespaced_job(namespace, client.V1Job(metadata=client.V1ObjectMeta(name="j"), spec=job)).spec.completions == 1)
    check("an invalid object is 422", code(core.create_namespaced_pod, namespace, {"metadata": {"name": "UP"}, "spec": {"containers": []}}) == 422)
    check("a missing object is 404", code(core.read_namespaced_secret, "none", namespace) == 404)


def watched(namespace):
    core, seen = client.CoreV1Api(), []
    revision = core.list_namespaced_config_map(namespace).metadata.resource_version

    def make():
        core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="w")))
        core.delete_namespaced_config_map("w", namespace)

    threading.Timer(0.3, make).start()
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, namespace, resource_version=revision, timeout_seconds=10):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watcher.stop()
    check("watch", seen == [("ADDED", "w"), ("DELETED", "w")], seen)
    pages, token = [], None
    while True:
        page = core.list_namespaced_config_map(namespace, limit=1, _continue=token)
        pages += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    check("pages", pages == sorted(set(pages)) and "c" in pages, pages)


def everything(namespace):
    """Server-side apply and the discovery of every kind, through the dynamic client."""
    cluster = dynamic.DynamicClient(client.ApiClient())
    maps = cluster.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied", "namespace": namespace}, "data": {"k": "1"}}
    applied = maps.server_side_apply(body=body, name="applied", namespace=namespace, field_manager="python")
    check("server-side apply", applied.metadata.managedFields[0].manager == "python", applied)
    body["data"] = {"k": "2"}
    other = code(lambda: maps.server_side_apply(body=body, name="applied", namespace=namespace, field_manager="other"))
    check("a conflict of managers is 409", other == 409, other)
    unlisted = []
    for resource in cluster.resources.search():
        if isinstance(resource, dynamic.resource.ResourceList) or "list" not in (resource.verbs or []):
            continue
        try:
            cluster.get(resource)
        except Exception as error:  # any way to fail is a finding here
            unlisted.append((resource.group_version, resource.kind, str(error)[:80]))
    check("every kind of the discovery can be listed", not unlisted, unlisted)


def main():
    config.load_kube_config(sys.argv[1])
    core = client.CoreV1Api()
    namespace = f"python-{uuid.uuid4().hex[:6]}"
    check("version", client.VersionApi().get_code().minor.startswith("37"))
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
    try:
        for part in (typed, watched, everything):
            part(namespace)
    finally:
        core.delete_namespace(namespace)
    sys.exit(1 if failures else 0)


main()
