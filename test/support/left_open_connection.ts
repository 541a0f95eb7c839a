import { LibvirtConnection } from "../../src/libvirt/connection.ts";

/*
 * A program that opens libvirt at the URI in its arguments, makes one call, closes nothing and comes to its end. With
 * a limit for the call it prints the code of the failure.
 */

const [uri = "", limit] = process.argv.slice(2);
const connection = await LibvirtConnection.open(
  uri,
  limit === undefined ? {} : { callTimeoutMs: Number(limit) },
)
  .catch((error) => error.code as string);
if (typeof connection === "string") {
  console.log(connection);
} else {
  console.log((await connection.listDomains()).length);
}
