import type { DeviceStatus, Status } from '../interpose/process/status.ts';
import { columns } from './table.ts';

/** How far each device is, in one line. */
export function lineOf({ devices }: Status): string {
  if (devices.length === 0) return 'no device so far';
  return devices.map(deviceLine).join('; ');
}

function deviceLine(device: DeviceStatus): string {
  const { phase, bytesDone, bytesLeft, bytesPerSecond, downtimeMs } = device;
  const parts = [`${shown(device.name)} ${shown(device.state ?? '-')}`];
  if (phase !== null) {
    parts.push(bytesLeft === null ? `${mib(bytesDone)} MiB` : `${mib(bytesDone)} MiB, ${mib(bytesLeft)} left`);
    if (bytesPerSecond !== null) parts.push(`${mib(bytesPerSecond)} MiB/s`);
    if (downtimeMs !== null) parts.push(`downtime ${downtimeMs} ms`);
  }
  return parts.join(', ');
}

const HEADINGS = ['DEVICE', 'PROTOCOL', 'STATE', 'DONE', 'LEFT', 'RATE', 'STOP-COPY', 'DOWNTIME', 'DIRTY'];

/** All that is known of each device. */
export function tableOf({ devices, takeovers }: Status): string {
  if (devices.length === 0) return 'No device so far.\n';
  const rows = devices.map((device) => [
    shown(device.name),
    device.protocol,
    shown(device.state ?? '-'),
    unit(mib(device.bytesDone), 'MiB'),
    unit(mib(device.bytesLeft), 'MiB'),
    unit(mib(device.bytesPerSecond), 'MiB/s'),
    unit(mib(device.stopCopyBytes), 'MiB'),
    unit(device.downtimeMs, 'ms'),
    unit(mib(device.dirtyBytesPerSecond), 'MiB/s'),
  ]);
  const dead = takeovers === 0 ? '' : `Supervisors that died and were succeeded: ${takeovers}\n`;
  return `${columns([HEADINGS, ...rows])}${dead}`;
}

function mib(bytes: number | null): number | null {
  return bytes === null ? null : Math.round((bytes / 2 ** 20) * 10) / 10;
}

function unit(value: number | null, name: string): string {
  return value === null ? '-' : `${value} ${name}`;
}

/** What somebody else says, without what a terminal would heed. */
function shown(text: string): string {
  return text.replaceAll(/\p{C}/gu, '?');
}
