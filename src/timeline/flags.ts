import type { AccessLine, RecordedCall, VfioCall } from '../recording/format.ts';
import { callText } from '../recording/text.ts';

/** What a picture points at: an error, a supervisor's death, or an end of the recording that is not the run's. */
export interface Flag {
  readonly time: number;
  readonly kind: 'error' | 'takeover' | 'end';
  readonly device: string | undefined;
  readonly text: string;
}

/** No recording has more flags. */
export const MAX_FLAGS = 256;

/** "Not yet", and "no data now" in pre-copy: whoever asked asks again. */
const ASK_AGAIN: ReadonlySet<string> = new Set(['EAGAIN', 'ENOMSG'] satisfies AccessLine['errno'][]);

/** What has failed in an access, if that is more than the answer to a question. */
export function failureIn(line: Pick<AccessLine, 'call' | 'errno' | 'driver'>): string | undefined {
  const { call, errno, driver = [] } = line;
  if (isFailure(call, errno)) return `${callText(call)} = ${errno}`;
  const failed = driver.find((each) => isFailure(each, each.errno));
  return failed === undefined ? undefined : `driver: ${callText(failed)} = ${failed.errno}`;
}

function isFailure(call: RecordedCall, errno: string | undefined): boolean {
  return errno !== undefined && !ASK_AGAIN.has(errno) && !(call.protocol === 'vfio' && isQuestion(call));
}

/** A VMM asks for what not every device has. */
function isQuestion({ request, feature }: VfioCall): boolean {
  if (request === undefined) return false;
  return /^VFIO_(USER_)?DEVICE_FEATURE$/.test(request) ? !/\bSET\b/.test(feature ?? '') : /_GET_|_CHECK_/.test(request);
}
