#!/usr/bin/env bash
# Rewrite the hashed lock files; run it after a change of dependencies in a pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { # group-flags… output
  local out=$1; shift
  grep -v '^fanxing-offline-sdk' <(.venv/bin/python - "$@" <<'PY'
import sys, tomllib
server = tomllib.load(open("pyproject.toml", "rb"))
sdk = tomllib.load(open("offline_sdk/pyproject.toml", "rb"))
wanted = server["project"]["dependencies"] + sdk["project"]["dependencies"] + ["hatchling"]
for name in sys.argv[1:]:
    wanted += server["project"]["optional-dependencies"].get(name, []) + server["dependency-groups"].get(name, [])
    wanted += sdk["project"]["optional-dependencies"].get(name, [])
print("\n".join(sorted(set(wanted))))
PY
  ) > "requirements/.in"
  .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
    --no-annotate -o "$out" requirements/.in
  rm requirements/.in
}
compile requirements/server.txt
compile requirements/dev.txt cluster pkcs11 kms scanner dev
