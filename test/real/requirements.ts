import { beforeAll, describe } from 'vitest';
import { ci, fetchQemu, isToBeFetched, missingQemu, type QemuVersion } from '../../tools/vmm/binaries.ts';
import { because, lacksForRun } from '../support/host.ts';

const FETCH_MS = 600_000;

/**
 * A group of tests that need these QEMUs. What is missing is fetched where CI or VFIO_SHIM_FETCH is set. Without one of them the group
 * is skipped on a developer's machine, and fails where CI is set. Where the host lacks what `run` takes, it is skipped everywhere.
 */
export function describeWithQemus(versions: readonly QemuVersion[], title: string, body: () => void): void {
  const missing = versions.flatMap((version) => (isToBeFetched(version) ? [] : (missingQemu(version) ?? [])));
  const lacking = lacksForRun();
  const reason = lacking ?? (missing.length === 0 ? undefined : missing.join('; '));
  describe.skipIf(lacking !== undefined || (missing.length > 0 && !ci))(`${title}${because(reason)}`, () => {
    beforeAll(async () => {
      for (const version of versions.filter(isToBeFetched)) await fetchQemu(version);
      const still = versions.flatMap((version) => missingQemu(version) ?? []);
      if (still.length > 0) throw new Error(still.join('; '));
    }, FETCH_MS);
    body();
  });
}

/** A group of tests that need QEMU 7 and no other. */
export function describeWithQemu(title: string, body: () => void): void {
  describeWithQemus(['7.2'], title, body);
}
