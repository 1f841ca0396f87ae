//! Policy `NAME`: everything on the node that is nearest to both sides together.

use crate::NodeId;
use crate::place::{Homes, Site};

/// Where the parts of a channel are to lie. Only `site.nodes` have memory that both sides can reach.
pub(crate) fn place(site: &Site<'_>) -> Homes {
    let way = |node: NodeId| site.distance(site.producer, node) + site.distance(site.consumer, node);
    let middle = site.nodes.iter().copied().min_by_key(|&node| way(node));
    Homes::all(middle.unwrap_or(site.producer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_three_nodes_is_taken() {
        // Two hops from end to end, one from the middle to either.
        let site = Site {
            producer: NodeId(0),
            consumer: NodeId(2),
            creator: NodeId(0),
            nodes: &[NodeId(0), NodeId(1), NodeId(2)],
            distances: &|from, to| [10, 15, 30][from.0.abs_diff(to.0) as usize],
        };
        assert_eq!(place(&site), Homes::all(NodeId(1)));
    }
}
