"""`python -m flowmetal_kernel -f CONNECTION_FILE`: the kernel's process. Jupyter starts it as the kernel spec says."""

from __future__ import annotations

from ipykernel.kernelapp import IPKernelApp

from flowmetal_kernel.kernel import FlowmetalKernel


def main() -> None:
    """Runs one kernel until Jupyter ends it."""
    IPKernelApp.launch_instance(kernel_class=FlowmetalKernel)


if __name__ == "__main__":
    main()
