# Everything a newcomer needs is here: `make demo` shows a mesh, `make test` proves it.

CARGO   ?= cargo
PREFIX  ?= /usr/local
prefix  ?= $(PREFIX)
bindir  ?= $(prefix)/bin
unitdir ?= $(prefix)/lib/systemd/system
sysusersdir ?= $(prefix)/lib/sysusers.d
tmpfilesdir ?= $(prefix)/lib/tmpfiles.d
mandir  ?= $(prefix)/share/man
DESTDIR ?=
# What is installed.
BINARY  ?= target/release/lateen
UNITS   := $(notdir $(wildcard systemd/*.service))

.PHONY: all build release demo test lint advisories bench bench-hot bench-check bench-store bench-scale install install-files uninstall tools clean

all: build

build:
	$(CARGO) build --locked

release:
	$(CARGO) build --locked --release

# A mesh of three hosts on this machine, with traffic. `make demo ARGS=--once` runs it through.
demo: tools release
	./target/release/lateen demo $(ARGS)

# Programs that are no part of us, so that servers and clients of the tests are not all our own.
test: tools
	@./.ci/tools python3:python3 curl:curl nginx:nginx-light ping:iputils-ping \
	  dnsmasq:dnsmasq-base dig:bind9-dnsutils iperf3:iperf3 logger:bsdutils
	$(CARGO) test --locked

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check bans licenses sources; \
	 else echo "lint: cargo-deny is not installed, so licences, bans and sources are not checked here"; fi

# Known vulnerabilities of what we depend on; fetches the advisory database.
advisories:
	$(CARGO) deny --locked check advisories

# The same work without a mesh, over lateen, and over whichever others the environment names.
bench: tools
	@./.ci/tools iperf3:iperf3 wrk:wrk nginx:nginx-light
	$(CARGO) bench --locked --bench compare

# The hot functions, as ratios to a yardstick: shown, judged by benches/baseline.json, stored in it.
# `make bench-check ONLY=outbound` measures those whose names match.
bench-hot:
	$(CARGO) bench --locked --bench hot -- "$(ONLY)"

bench-check:
	BASELINE=check $(CARGO) bench --locked --bench hot -- "$(ONLY)"

bench-store:
	BASELINE=store $(CARGO) bench --locked --bench hot -- "$(ONLY)"

# A mesh of 100,000 workloads and 200 nodes: what it costs the control plane, a change, and a node.
# `make bench-scale WORKLOADS=10000 NODES=50` for another size.
bench-scale:
	$(CARGO) bench --locked --bench scale

# nft and ip carry the capture and the rigs, with openssl and setpriv beside them.
tools:
	@./.ci/tools nft:nftables ip:iproute2 openssl:openssl setpriv:util-linux

# The users, directories and units are there after `systemd-sysusers`, `systemd-tmpfiles --create` and
# `systemctl daemon-reload`, which packages run by themselves.
install: release install-files

# With a binary that is there: BINARY=PATH.
install-files:
	install -D -m 0755 $(BINARY) $(DESTDIR)$(bindir)/lateen
	install -d $(DESTDIR)$(unitdir) $(DESTDIR)$(mandir)/man1
	for unit in $(UNITS); do \
	  sed 's|@bindir@|$(bindir)|g' systemd/$$unit > $(DESTDIR)$(unitdir)/$$unit && \
	  chmod 0644 $(DESTDIR)$(unitdir)/$$unit || exit 1; done
	install -D -m 0644 systemd/lateen.sysusers $(DESTDIR)$(sysusersdir)/lateen.conf
	install -D -m 0644 systemd/lateen.tmpfiles $(DESTDIR)$(tmpfilesdir)/lateen.conf
	$(BINARY) man > $(DESTDIR)$(mandir)/man1/lateen.1

# What lateen has written stays: /etc/lateen and /var/lib/lateen.
uninstall:
	rm -f $(DESTDIR)$(bindir)/lateen $(UNITS:%=$(DESTDIR)$(unitdir)/%)
	rm -f $(DESTDIR)$(sysusersdir)/lateen.conf $(DESTDIR)$(tmpfilesdir)/lateen.conf
	rm -f $(DESTDIR)$(mandir)/man1/lateen.1

clean:
	$(CARGO) clean
