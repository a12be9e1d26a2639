#!/usr/bin/env python3
"""Writes RESULTS.md from the JUnit reports of upstream's conformance suite: results.py JUNIT.xml... > RESULTS.md
Causes of failures stand in CAUSES: the first pattern that a test's name matches says why."""
import re
import sys
import xml.etree.ElementTree as tree

CAUSES = [
    (r"AggregatedDiscovery|Discovery should locate", "the group admissionregistration.k8s.io is not served yet"),
    (r"dependency circle", "circles of owners in foreground deletion held each other up; mended after this run"),
    (r"ReplicationController should surface", "the condition stayed after a scaling down; mended after this run"),
    (r"406 for a backend", "an access review answers a Table request with JSON instead of 406"),
    (r"service status lifecycle", "a null in a required time (`lastTransitionTime`) is refused instead of read as the zero time"),
    (r"logs from the container over websockets", "logs are not served over WebSocket yet"),
    (r"read only busybox", "the shell of the locally built busybox image words its error differently"),
    (r"be restarted with a exec|HostPort validates", "the node's containers were ended from outside during the run; passes alone"),
    (r"CustomResource|CRD|FieldValidation.*CR|custom resource|OpenAPI", "custom resources are not served yet"),
    (r"AdmissionWebhook|AdmissionPolicy|MutatingAdmission", "admission webhooks and policies are not served yet"),
    (r"Aggregator|APIService|sample API", "API aggregation is not served yet"),
    (r"ClusterTrustBundle|PodCertificate", "the kinds ClusterTrustBundle and PodCertificateRequest are not served yet"),
    (r"\[DRA\]|ResourceClaim", "dynamic resource allocation (resource.k8s.io) is not served yet"),
    (r"InPlace Resize|[Rr]esize", "in-place resize of Pods is not implemented yet"),
    (r"ServiceCIDR", "the kinds ServiceCIDR and IPAddress are not served yet"),
    (r"FlowSchema|PriorityLevel|flowcontrol", "the flowcontrol kinds are not served yet"),
    (r"StatefulSet|DaemonSet|Job |CronJob|Job\]|ControllerRevision", "their controllers come with a later release"),
    (r"PersistentVolume|PVC|CSI|VolumeAttachment|StorageClass|VolumeAttributesClass", "persistent volumes have no controller yet"),
    (r"DisruptionController|PodDisruptionBudget", "disruption budgets have no controller yet"),
    (r"Certificates API", "the approval subresource of CertificateSigningRequests is not served yet"),
    (r"RuntimeClass", "RuntimeClass admission is not implemented yet"),
    (r"Proxy version v1", "the proxy subresource does not rewrite links in pages yet"),
    (r"apply|Apply|server-side", "server-side apply is not implemented yet"),
    (r"ImageVolume|image volume", "image volumes are not implemented yet"),
    (r"EndpointSliceMirroring", "the mirroring controller was not part of the binary that was run"),
    (r"PodTemplate|watch list|Protobuf|protobuf", "protobuf bodies are not served yet"),
]


def main():
    cases = {}
    for path in sys.argv[1:]:
        for case in tree.parse(path).getroot().iter("testcase"):
            name = case.get("name", "")
            if not name.startswith("[It]") or "[Conformance]" not in name or case.get("status") in ("skipped", "pending"):
                continue
            failure = case.find("failure")
            cases[re.sub(r" \[sig-[^\[\]]*, [^\]]*\]$", "", name[5:])] = None if failure is None else (failure.get("message") or "").split("\n")[0]
    passed = sorted(name for name, failure in cases.items() if failure is None)
    failed = sorted((name, failure) for name, failure in cases.items() if failure is not None)
    print("# Conformance\n")
    print("Upstream's suite of 1.37.2 against one node of `xebec up`, run by `conformance/run.sh` of the tool folder with\n"
          "`E2E_ARGS=--kube-api-content-type=application/json` over the areas that are built. This page is written by `conformance/results.py`\n"
          "from the run's JUnit report.\n")
    print(f"**{len(passed)}** of the suite's 462 tests pass; {len(failed)} of those that were run fail.\n")
    print("## Failing\n\n| test | cause |\n|---|---|")
    for name, failure in failed:
        cause = next((cause for pattern, cause in CAUSES if re.search(pattern, name)), None) or failure
        print(f"| {name.replace('|', '/')} | {cause[:200].replace('|', '/')} |")
    print("\n## Passing\n")
    for name in passed:
        print(f"- {name}")


main()
