import { readFileSync, writeFileSync } from 'node:fs';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { deviceInfo, migrationRegionAmong, regionsOf } from '../../src/vfio/client/device-info.ts';
import type { VfioPort } from '../../src/vfio/port.ts';
import { VFIO_REGION_TYPE_MIGRATION_DRAFT } from '../../src/abi/vfio-drafts.ts';
import { isDraft, type Draft, type DraftDevice } from '../../src/v1/drafts/device.ts';
import { DraftRestore } from '../../src/v1/drafts/restore.ts';
import { Draft2018Save } from '../../src/v1/drafts/save-2018.ts';
import { Draft2019Save } from '../../src/v1/drafts/save-2019.ts';
import { DraftAccess } from '../../src/v1/drafts/registers.ts';
import { Interrupted } from './interrupted.ts';

/**
 * A small program of a draft without a VM, for `vfio-shim run`: `save DRAFT FILE GROUP:UUID` or `restore DRAFT FILE GROUP:UUID`. With
 * `--interrupt` before the device, the supervisor is killed before each access to a register. FILE has a line for each buffer.
 * Prints a line of JSON.
 */

const [action, draft = '', file = '', ...rest] = process.argv.slice(2);
const name = process.env['VFIO_SHIM_LAB_NAME'] ?? '';
if (!isDraft(draft)) throw new Error(`${draft} is no draft`);
using opened = openKernelDevice(rest.at(-1) ?? '');
const plain = draftDevice(opened.port, draft);
const interrupted = rest.includes('--interrupt') ? new Interrupted(plain, name) : undefined;
const device: DraftDevice = interrupted === undefined ? plain : withDraft(interrupted, draft);

if (action === 'save') writeFileSync(file, save(device).join('\n'));
else restore(device, readFileSync(file, 'utf8').split('\n'));
console.log(JSON.stringify({ accesses: interrupted?.accesses, killed: interrupted?.killed }));

function draftDevice(port: VfioPort, generation: Draft): DraftDevice {
  const found = [...regionsOf(port, deviceInfo(port).regions)];
  const region = migrationRegionAmong(found, VFIO_REGION_TYPE_MIGRATION_DRAFT);
  const [area] = region?.sparse ?? [];
  const mapped = region && area && port.map?.(region, area.offset, area.size);
  if (region === undefined || area === undefined || mapped === undefined) {
    throw new Error("the device has no draft's region whose data can be mapped");
  }
  const all = (moved: number, bytes: Uint8Array): void => {
    if (moved !== bytes.length) throw new Error(`an access of ${bytes.length} bytes moved ${moved}`);
  };
  return {
    draft: generation,
    regionSize: region.size,
    dataSection: area,
    mapped,
    read: (offset, into) => all(port.read(region, offset, into), into),
    write: (offset, from) => all(port.write(region, offset, from), from),
    reset: () => port.reset(),
  };
}

function withDraft(region: Interrupted<Uint8Array>, generation: Draft): DraftDevice {
  return {
    draft: generation,
    regionSize: region.regionSize,
    dataSection: region.dataSection,
    mapped: region.mapped,
    read: (offset, into) => region.read(offset, into),
    write: (offset, from) => region.write(offset, from),
    reset: () => region.reset(),
  };
}

/** All of a running device's state; it runs on. */
function save(from: DraftDevice): string[] {
  const buffers: string[] = [];
  const sink = (buffer: Uint8Array): void => void buffers.push(Buffer.from(buffer).toString('base64'));
  const saving = from.draft === 'draft-2018' ? new Draft2018Save(from, sink) : new Draft2019Save(from, sink);
  saving.setup();
  if (saving.pending() > 0) saving.iterate();
  saving.stop();
  saving.complete();
  new DraftAccess(from, from.draft).write('device_state', 1); // RUNNING, in both
  return buffers;
}

function restore(to: DraftDevice, lines: readonly string[]): void {
  const restoring = new DraftRestore(to);
  restoring.setup();
  for (const line of lines) restoring.load(Buffer.from(line, 'base64'));
  restoring.complete();
}
