import { optionValue } from "./option.ts";

/** QMP on a private socket. `wait=off`: the guest starts without waiting for somebody to connect. */
export function monitorArguments(runtimeDirectory: string | null): string[] {
  if (runtimeDirectory === null) return [];
  return [
    ...[
      "-chardev",
      `socket,id=monitor,path=${optionValue(`${runtimeDirectory}/qmp.sock`)},server=on,wait=off`,
    ],
    ...["-mon", "chardev=monitor,mode=control"],
  ];
}
