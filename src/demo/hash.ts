import type { DeviceReport } from '../interpose/serve/report.ts';
import { createHash } from 'node:crypto';

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The hash of an emulated device's memory, which its report has. */
export function guestHash(report: DeviceReport): string {
  if (report.sha256 === null) throw new Error(`${report.name}: the report has no hash of its guest's memory`);
  return report.sha256;
}
