/** The first serial port on standard input and output; Ctrl-C ends QEMU, as a user of a foreground command expects. */
export function consoleArguments(): string[] {
  return ["-chardev", "stdio,id=console,signal=on", "-serial", "chardev:console"];
}
