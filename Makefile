# make demo and make test are all the set-up there is; see README.md.
.PHONY: help demo test test-gpu soak fuzz differential architectures check format stubs docs release-check bench demo-bundle clean
.PHONY: check-format check-lint check-types check-layers check-dockerfile check-stubs environment

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo:  ## serve the bundled model and stream photographs to it (light install, no torch)
	@.ci/environment light
	@build/light/bin/tensign demo

test:  ## every test, with the full environment and MLflow 2 beside it
	@.ci/environment full
	@.ci/environment mlflow2
	@build/full/bin/python -m pytest $(ARGS)

test-gpu:  ## the tests that need an NVIDIA GPU, with onnxruntime-gpu in an environment of its own (no GPU: skipped, and why)
	@.ci/environment gpu
	@build/gpu/bin/python -m pytest -m gpu tests/gpu $(ARGS)

fuzz:  ## what strangers can send, 200,000 inputs for each of three entries (about 15 minutes); ARGS="--runs 5000 codec"
	@.ci/environment full
	@build/full/bin/python tests/fuzz/run.py $(ARGS)

check: check-format check-lint check-types check-layers check-dockerfile check-stubs  ## all that pre-commit runs: ruff, mypy strict, import order, hadolint, fresh stubs

environment:
	@.ci/environment full

check-format: environment
	build/full/bin/python -m ruff format --check .

check-lint: environment
	build/full/bin/python -m ruff check .

check-types: environment
	build/full/bin/python -m mypy

check-layers: environment
	build/full/bin/python -m pytest -q tests/test_layers.py tests/test_public_api.py tests/test_release.py

check-dockerfile: environment
	build/full/packages/bin/hadolint Dockerfile.gpu

check-stubs:
	@$(MAKE) --no-print-directory stubs OUT=build/fresh
	diff build/fresh/tensign/_pb/open_inference_pb2.py runtime/tensign/_pb/open_inference_pb2.py
	diff build/fresh/tensign/_pb/open_inference_pb2.pyi runtime/tensign/_pb/open_inference_pb2.pyi

format:  ## let ruff format and mend
	@.ci/environment full
	build/full/bin/python -m ruff check --fix .
	build/full/bin/python -m ruff format .

OUT = runtime
stubs:  ## generate runtime/tensign/_pb from proto/, in a private descriptor pool so that tritonclient may live beside it
	@.ci/environment stubs
	@mkdir -p $(OUT)
	build/stubs/bin/python -m grpc_tools.protoc -Itensign/_pb=proto --python_out=$(OUT) --pyi_out=$(OUT) tensign/_pb/open_inference.proto
	sed -i 's/_descriptor_pool.Default()/_descriptor_pool.DescriptorPool()/' $(OUT)/tensign/_pb/open_inference_pb2.py
	@grep -q 'DESCRIPTOR = _descriptor_pool.DescriptorPool()' $(OUT)/tensign/_pb/open_inference_pb2.py

docs:  ## the API reference, from the docstrings of what __all__ names, into build/docs; a warning fails
	@.ci/environment full
	@rm -rf build/docs
	build/full/bin/python -W error -c 'from tensign import *; from pdoc.__main__ import cli; cli()' \
	  --no-show-source -o build/docs tensign tensign_converters
	@echo "docs: open build/docs/index.html"

release-check:  ## build sdist and wheel, use the wheel in a fresh environment away from here, leave both in dist
	@.ci/environment full
	@.ci/release-check

bench:  ## every figure of the README: footprint, fidelity, what serving costs, neighbours, rivals (needs h2load; an hour and a half)
	@.ci/environment full
	@.ci/environment light
	build/full/bin/python benchmarks/footprint.py build/light/bin/python build/full/bin/python
	build/full/bin/python benchmarks/fidelity.py
	build/full/bin/python benchmarks/served.py
	build/full/bin/python benchmarks/regions.py
	build/full/bin/python benchmarks/neighbours.py
	build/full/bin/python benchmarks/resize.py
	build/full/bin/python benchmarks/fronts.py
	build/full/bin/python benchmarks/frontends.py
	build/full/bin/python benchmarks/client.py
	build/full/bin/python benchmarks/generator.py
	build/full/bin/python benchmarks/manifest.py
	build/full/bin/python benchmarks/invocations.py
	build/full/bin/python benchmarks/rivals.py

soak:  ## a million rows with identities, an hour's mixed requests: every row accounted for, the server flat (four and a half minutes)
	@.ci/environment full
	build/full/bin/python -m tests.soak $(ARGS)

differential:  ## our enforcement against MLflow's own on 20,000 generated signatures and data (three minutes)
	@.ci/environment full
	build/full/bin/python -m tests.differential --pairs 20000

architectures:  ## eleven networks, calibrated, converted and compared (four minutes)
	@.ci/environment full
	build/full/bin/python tests/architectures.py

demo-bundle:  ## make runtime/tensign/_demo again from packages
	@.ci/environment full
	build/full/bin/python -m pip install --quiet -r examples/make_demo.txt
	build/full/bin/python examples/make_demo.py runtime/tensign/_demo

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
