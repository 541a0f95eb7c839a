import { optionValue } from "./option.ts";

/** `wait=off`: the guest starts without waiting for somebody to connect. */
export function monitorArguments(qmpSocketPath: string | null): string[] {
  if (qmpSocketPath === null) return [];
  return [
    ...["-chardev", `socket,id=monitor,path=${optionValue(qmpSocketPath)},server=on,wait=off`],
    ...["-mon", "chardev=monitor,mode=control"],
  ];
}
