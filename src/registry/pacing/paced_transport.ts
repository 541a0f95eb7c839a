import type { RegistryRequest, RegistryResponse, Transport } from "../transport.ts";
import { translateTransportError } from "../transport_error.ts";
import { HostPauses } from "./host_pauses.ts";
import { retryAfterMs } from "./retry_after.ts";
import type { WarningLog } from "./warning_log.ts";

/**
 * The transport as all requests of a process share it: when a host says that it is asked too often, or is down for a
 * moment, nobody asks it before it wants to be asked. Tries nothing again.
 */
export class PacedTransport implements Pick<Transport, "send"> {
  readonly #transport: Pick<Transport, "send">;
  readonly #warnings: WarningLog;
  readonly #pauses = new HostPauses();

  constructor(transport: Pick<Transport, "send">, warnings: WarningLog) {
    this.#transport = transport;
    this.#warnings = warnings;
  }

  /** @throws {ShimError} what {@link Transport.send} throws */
  async send(request: RegistryRequest): Promise<RegistryResponse> {
    const { url, signal } = request;
    try {
      await this.#pauses.wait(url.origin, signal);
    } catch (error) {
      throw translateTransportError(error, request);
    }
    const response = await this.#transport.send(request);
    this.#warnings.note(url.host, response.values("warning"));
    if (response.status === 429 || response.status === 503) {
      const pauseMs = retryAfterMs(response);
      if (pauseMs !== undefined) this.#pauses.pause(url.origin, pauseMs);
    }
    return response;
  }
}
