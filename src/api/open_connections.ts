import type { Socket } from "node:net";

/**
 * The connections of one server. Whoever comes when there are too many is let in, and the one that has been idle longest
 * is closed: a caller that holds thousands open shuts nobody out. Idle is who has asked for nothing, is still about to
 * ask, or does not take the answer. Where none is idle, the newcomer is closed.
 */
export class OpenConnections {
  readonly #limit: number;
  readonly #all = new Set<Socket>();
  /** Longest idle first. */
  readonly #idle = new Set<Socket>();
  /** Requests that are being worked on; pipelining has several of one connection. */
  readonly #requests = new Map<Socket, number>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(socket: Socket): void {
    if (this.#all.size >= this.#limit) {
      const [longest = socket] = this.#idle;
      longest.destroy();
      this.#forget(longest);
      if (longest === socket) return;
    }
    this.#all.add(socket);
    this.#idle.add(socket);
    socket.once("close", () => this.#forget(socket));
  }

  /**
   * A request of this connection has come whole, and is being worked on.
   *
   * @returns called once, when its answer is handed over, or its caller has gone
   */
  begin(socket: Socket): () => void {
    this.#idle.delete(socket);
    this.#requests.set(socket, (this.#requests.get(socket) ?? 0) + 1);
    return () => {
      const left = (this.#requests.get(socket) ?? 1) - 1;
      if (left > 0) {
        this.#requests.set(socket, left);
        return;
      }
      this.#requests.delete(socket);
      if (this.#all.has(socket)) this.#idle.add(socket);
    };
  }

  #forget(socket: Socket): void {
    this.#all.delete(socket);
    this.#idle.delete(socket);
    this.#requests.delete(socket);
  }
}
