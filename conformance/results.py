#!/usr/bin/env python3
"""Writes RESULTS.md from the JUnit reports of upstream's conformance suite: results.py JUNIT.xml... > RESULTS.md
Causes of failures stand in CAUSES: the first pattern that a test's name matches says why."""
import re
import sys
import xml.etree.ElementTree as tree

CAUSES = [
    (r"AggregatedDiscovery|Discovery should locate", "the group admissionregistration.k8s.io is not served yet"),
    (r"read only busybox", "the shell of the locally built busybox image words its error differently"),
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
    (r"Certificates API", "the approval subresource of CertificateSigningRequests is not served yet"),
    (r"RuntimeClass", "RuntimeClass admission is not implemented yet"),
    (r"Proxy version v1", "a proxied https port with a certificate of its own is answered with 502"),
    (r"apply|Apply|server-side", "server-side apply is not implemented yet"),
    (r"ImageVolume|image volume", "image volumes are not implemented yet"),
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
