"""The command line, which `run` begins."""

import signal


def run() -> None:
    """Run a command. A Ctrl-C that comes before the command listens for it ends it in silence."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from lora_assets.cli.main import main

    main()
