# make           what Go alone can check, in less than three minutes
# make test      everything; scripts/test.sh says what it needs
# make soak      killed processes and failing databases, for half an hour
# make mutate    takes guards out of the library and shows that the tests notice
# make bench     the tables of docs/BENCHMARKS.md

.PHONY: short test soak mutate bench

short:
	scripts/short.sh

test:
	scripts/test.sh

soak:
	scripts/soak.sh

mutate:
	scripts/mutate.sh

bench:
	cd bench && go run ./cmd/bench -engine pg
	cd bench && go run ./cmd/bench -engine sqlite
