import { execFileSync } from "node:child_process";

/** A line of an htpasswd file with a bcrypt hash, the only kind that `docker-registry` takes. */
export function htpasswdLine(username: string, password: string): string {
  const hash = execFileSync("perl", [
    "-e",
    'print crypt($ARGV[0], q($2b$05$) . "abcdefghijklmnopqrstuu")',
    password,
  ], {
    encoding: "utf8",
  });
  if (!hash.startsWith("$2b$")) throw new Error("this system's crypt(3) has no bcrypt");
  return `${username}:${hash}\n`;
}
