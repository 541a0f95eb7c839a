import { endianness } from "node:os";
import { loadLibc } from "./libc.ts";

/** Who is at the other end of a unix socket, as the kernel saw it when the connection was made. */
export type PeerCredentials = { readonly pid: number; readonly uid: number; readonly gid: number };

/** The C's numbers on Linux, for all architectures we run on. */
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

/**
 * Asks the kernel; nothing that the peer sends can change the answer.
 *
 * @param fd of a connected unix socket
 * @throws an errno error
 * @see unix(7), SO_PEERCRED
 */
export async function peerCredentials(fd: number): Promise<PeerCredentials> {
  // struct ucred { pid_t pid; uid_t uid; gid_t gid; }, each 32 bits.
  const credentials = new Uint8Array(12);
  const libc = await loadLibc();
  libc.getsockopt(fd, { level: SOL_SOCKET, option: SO_PEERCRED, value: credentials });
  const view = new DataView(credentials.buffer);
  const isLittle = endianness() === "LE";
  return {
    pid: view.getInt32(0, isLittle),
    uid: view.getUint32(4, isLittle),
    gid: view.getUint32(8, isLittle),
  };
}
