#!/bin/bash
# Prints the path of a kubectl of the served version, built once from its Go module, for the tests that hold our verbs against
# it. Without Go it prints nothing, and those tests use our own verbs alone.
set -eu
version=1.37.2
cd "$(dirname "$0")/.."
mkdir -p "${CARGO_TARGET_DIR:-target}/kubectl"
cd "${CARGO_TARGET_DIR:-target}/kubectl"
if [ ! -x kubectl ]; then
    command -v go >/dev/null || { echo "no Go here: the tests use our own verbs alone" >&2; exit 1; }
    printf 'module xebec.invalid/kubectl\n\ngo 1.26.0\n\nrequire k8s.io/kubectl v0.%s\n' "${version#1.}" >go.mod
    printf 'package main\n\nimport (\n\t"k8s.io/component-base/cli"\n\t"k8s.io/kubectl/pkg/cmd"\n\t"k8s.io/kubectl/pkg/cmd/util"\n)\n\nfunc main() {\n\tif err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {\n\t\tutil.CheckErr(err)\n\t}\n}\n' >main.go
    go mod tidy >/dev/null 2>&1
    flags="-s -w -X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/client-go/pkg/version.gitVersion=v$version"
    CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o kubectl.new . >&2
    mv kubectl.new kubectl
fi
echo "$PWD/kubectl"
