import { messageOf, warn } from '../run/log.ts';
import type { Plan } from '../run/plan.ts';
import { StatusReader } from './status-reader.ts';
import { StatusServer } from './status-server.ts';

/** Whoever connects to the socket is told how far migrations are. Nothing of it ends the keeper, without which the VMM's calls would fail. */
export function answerStatus(
  socket: number,
  plan: Plan,
  journal: Uint8Array,
  takeovers: { readonly count: number },
): void {
  const reader = new StatusReader(plan, journal);
  const answer = (): string | undefined => {
    try {
      return `${JSON.stringify(reader.status(takeovers.count))}\n`;
    } catch (error) {
      warn(`status: ${messageOf(error)}`);
      return undefined;
    }
  };
  new StatusServer(socket, answer).listen();
}
