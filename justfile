# One command each. CI runs the same commands (.ci/run); `just` only saves typing.

set shell := ["bash", "-euo", "pipefail", "-c"]

host := `rustc -vV | sed -n 's/^host: //p'`
target := env("CARGO_TARGET_DIR", "target")

# lists the recipes
default:
    @just --list

# everything that needs no test: format, lints, documentation, dependencies
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked --test errors --test faults -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
    just deny

# licences, banned crates, sources, advisories
deny:
    cargo deny --locked check

# the tests: no root, no cluster
test:
    cargo test --locked --workspace

# every order of events of every named scenario: how many there are, and how long they took
interleave:
    #!/usr/bin/env bash
    set -euo pipefail
    PODWAY_INTERLEAVINGS=$(mktemp)
    export PODWAY_INTERLEAVINGS
    trap 'rm -f "$PODWAY_INTERLEAVINGS"' EXIT
    cargo test --locked --release --test it interleavings
    cargo test --quiet --locked --release --test it print_the_table -- --ignored --nocapture

# real TUN device and resolver files, in network namespaces of their own (as root)
e2e:
    PODWAY_REQUIRE_ROOT_TESTS=1 cargo test --locked --workspace

# what is said when something fails, against docs/errors.md, as root; with --write it is written there
errors *args:
    cargo test --locked --test errors -- {{args}}

# the daemon under faults, against docs/reliability.md, as root; with --write it is written there
faults *args:
    cargo test --locked --test faults -- {{args}}

# the systemd files
unit:
    cargo test --locked --test it unit_file

# podway and podwayd, for use
build:
    cargo build --locked --release

# the static agent
agent:
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release -p podway-agent --target {{host}}

# the agent's image as an archive, for `docker load` or `ctr images import`
agent-image name="podway-agent:dev": agent
    agent/image {{target}}/{{host}}/release/podway-agent {{target}}/podway-agent.tar {{name}}

# what is shipped: with link-time optimisation
dist:
    cargo build --locked --profile dist
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile dist -p podway-agent --target {{host}}

# the checks on a real cluster (docs/testing.md says what they need)
cluster *args:
    tests/cluster/run {{args}}

# the figures of docs/performance.md, all in one table; with KUBECONFIG those of a real cluster too
bench *args: bench-build
    benches/run {{args}}

# the figures of the miniature cluster alone
bench-mini *args: bench-build
    benches/minicluster {{args}}

# what is measured, and what measures
bench-build:
    cargo build --locked --release
    cargo build --locked --release --example podway-load --example podway-rig
    cargo build --locked --release -p podway-agent --example rate

# the README's picture: a run of the demo as it was
picture:
    CLICOLOR_FORCE=1 cargo run --locked --release -q -- demo \
        | cargo run --locked -q --example terminal-picture -- cargo run --release -- demo >docs/images/demo.svg.new
    mv docs/images/demo.svg.new docs/images/demo.svg

# all of it, as CI does
ci:
    .ci/run
