//! The real rule engine in a network namespace: what is rendered is taken, what is listed is what was sent, and a
//! refused transaction leaves nothing behind.

mod namespace;

use std::time::Duration;

use namespace::Namespace;
use xebec_netfilter::{
    Chain, Change, Element, Error, Family, Hook, HookKind, HookPoint, Listing, Name, Netfilter, Nft, Rule, Set, Table,
    TableId, Transaction, remove_all,
};

fn example() -> Table {
    let mut table = Table::new(TableId::new(Family::Ip, Name::fixed("xebec-test")));
    table.chain(
        Name::fixed("svc/default/redis-master/tcp/6379"),
        None,
        vec![
            Rule::fixed("meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 81 }")
                .with_comment("default/redis-master"),
        ],
    );
    let nat = Hook::new(HookKind::Nat, HookPoint::Prerouting, Hook::DSTNAT);
    table.chain(
        Name::fixed("pre"),
        Some(nat),
        vec![
            Rule::fixed("ip daddr . meta l4proto . th dport vmap @services"),
            Rule::fixed("update @seen { ip saddr }"),
        ],
    );
    let mut services = Set::map("ipv4_addr . inet_proto . inet_service", "verdict");
    let goal = "goto svc/default/redis-master/tcp/6379";
    services.elements.insert(Element::pair("10.96.0.1 . tcp . 6379", goal).unwrap());
    services.elements.insert(Element::pair("10.96.0.2 . udp . 53", "drop").unwrap());
    table.sets.insert(Name::fixed("services"), services);
    table.sets.insert(Name::fixed("seen"), Set::expiring("ipv4_addr", Duration::from_secs(60)));
    table
}

#[tokio::test]
async fn the_kernel_holds_what_was_sent() {
    let Some(namespace) = Namespace::create("nft") else { return };
    let nft = Nft::in_namespace(&namespace.path());
    let mut table = example();
    let id = table.id.clone();
    assert_eq!(nft.list(&id).await.unwrap(), None);
    nft.apply(&Change::ReplaceTable(table.clone()).into()).await.unwrap();
    assert_eq!(nft.list(&id).await.unwrap().unwrap(), Listing::of(&table));

    let (services, old) = (Name::fixed("services"), Name::fixed("svc/default/redis-master/tcp/6379"));
    let (new, key) = (Name::fixed("svc/default/other/tcp/1"), "10.96.0.1 . tcp . 6379");
    let chain = Chain { hook: None, rules: vec![Rule::fixed("meta l4proto tcp dnat to 10.0.0.3:80")] };
    let transaction: Transaction = [
        Change::PutChain(id.clone(), new.clone(), chain.clone()),
        Change::DeleteElement(id.clone(), services.clone(), Element::key(key).unwrap()),
        Change::AddElement(id.clone(), services, Element::pair(key, format!("goto {new}")).unwrap()),
        Change::DeleteChain(id.clone(), old.clone()),
        Change::PutSet(id.clone(), Name::fixed("late"), Set::of("ipv4_addr")),
        Change::DeleteSet(id.clone(), Name::fixed("late")),
    ]
    .into_iter()
    .collect();
    nft.apply(&transaction).await.unwrap();
    table.chains.remove(&old);
    table.chains.insert(new, chain);
    assert_eq!(nft.list(&id).await.unwrap().unwrap(), Listing::of(&table));
}

#[tokio::test]
async fn a_refused_transaction_changes_nothing() {
    let Some(namespace) = Namespace::create("nft") else { return };
    let nft = Nft::in_namespace(&namespace.path());
    let table = example();
    let id = table.id.clone();
    nft.apply(&Change::ReplaceTable(table.clone()).into()).await.unwrap();
    let missing = Element::key("10.96.0.9 . tcp . 1").unwrap();
    let transaction: Transaction = [
        Change::PutChain(id.clone(), Name::fixed("fresh"), Chain::default()),
        Change::DeleteElement(id.clone(), Name::fixed("services"), missing),
    ]
    .into_iter()
    .collect();
    let error = nft.apply(&transaction).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { message, .. } if message.contains("10.96.0.9")), "{error}");
    assert_eq!(nft.list(&id).await.unwrap().unwrap(), Listing::of(&table));
}

#[tokio::test]
async fn remove_all_takes_only_ours() {
    let Some(namespace) = Namespace::create("nft") else { return };
    let nft = Nft::in_namespace(&namespace.path());
    namespace.run("nft add table inet stranger");
    nft.apply(&Change::ReplaceTable(example()).into()).await.unwrap();
    assert_eq!(remove_all(&nft).await.unwrap().len(), 1);
    let left: Vec<String> = nft.tables().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(left, ["inet stranger"]);
}
