import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  type iommu_option,
} from '../../abi/iommufd.ts';
import type { Values } from '../../abi/struct.ts';
import type { Ask } from './iommufd-requests.ts';
import { hwptsOf, keyOf, objectOf, type Ioas, type IommufdHost, type IommufdState } from './iommufd-state.ts';
import { refuse } from './refuse.ts';

type OptionAsk = Ask<Values<typeof iommu_option.fields>>;

/** `IOMMU_OPTION` (drivers/iommu/iommufd/main.c: iommufd_option). */
export function option(ask: OptionAsk): void {
  const { cmd } = ask;
  if (cmd.reserved !== 0) throw refuse('EOPNOTSUPP', 'IOMMU_OPTION: reserved');
  switch (cmd.option_id) {
    case IOMMU_OPTION_RLIMIT_MODE:
      if (cmd.object_id !== 0) throw refuse('EOPNOTSUPP', `IOMMU_OPTION_RLIMIT_MODE: object ${cmd.object_id}`);
      oneOf(ask, () => ask.context.byProcess, rlimitMode);
      return;
    case IOMMU_OPTION_HUGE_PAGES: {
      const ioas = objectOf(ask.context, 'ioas', cmd.object_id);
      oneOf(
        ask,
        () => ioas.largePages,
        (wanted) => hugePages(ask, ioas, wanted),
      );
      return;
    }
    default:
      throw refuse('EOPNOTSUPP', `IOMMU_OPTION: option ${cmd.option_id}`);
  }
}

/** Gets or sets an option that is 1 or 0. */
function oneOf(ask: OptionAsk, get: () => boolean, set: (wanted: number, ask: OptionAsk) => void): void {
  const { op, val64 } = ask.cmd;
  if (op === IOMMU_OPTION_OP_GET) ask.respond({ val64: get() ? 1n : 0n });
  else if (op !== IOMMU_OPTION_OP_SET) throw refuse('EOPNOTSUPP', `IOMMU_OPTION: op ${op}`);
  else set(val64 > 1n ? -1 : Number(val64), ask);
}

function rlimitMode(wanted: number, { context, host }: OptionAsk): void {
  if (!host.mayAccount()) throw refuse('EPERM', 'IOMMU_OPTION_RLIMIT_MODE: without CAP_SYS_RESOURCE');
  if (context.objects.length > 0) throw refuse('EBUSY', 'IOMMU_OPTION_RLIMIT_MODE: there are objects');
  if (wanted < 0) throw refuse('EINVAL', 'IOMMU_OPTION_RLIMIT_MODE: neither 0 nor 1');
  context.byProcess = wanted === 1;
}

function hugePages({ context, host }: OptionAsk, ioas: Ioas, wanted: number): void {
  if (wanted < 0) throw refuse('EINVAL', 'IOMMU_OPTION_HUGE_PAGES: neither 0 nor 1');
  if (wanted === 0) disableLargePages(context, ioas, host);
  else ioas.largePages = true;
}

/** From now on all is by small pages (drivers/iommu/iommufd/io_pagetable.c: iopt_disable_large_pages). */
export function disableLargePages(context: IommufdState, ioas: Ioas, host: IommufdHost): void {
  const key = keyOf(context, ioas.id);
  if (!ioas.largePages) return;
  if (hwptsOf(context, ioas.id).length > 0 && host.mappings.has(key)) {
    throw refuse('EINVAL', 'large pages: a page table has pages already');
  }
  if (!host.mappings.areWhole(key, host.pageSize)) {
    throw refuse('EADDRINUSE', 'large pages: a mapping is no whole pages');
  }
  ioas.largePages = false;
}
