"""Contract suites that every plug-in must pass, shipped for plug-in authors."""
