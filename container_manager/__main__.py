"""`python -m container_manager` is the same as `container-manager`."""

from container_manager.cli.main import main

main()
